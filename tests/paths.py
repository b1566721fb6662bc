"""Where the checkout's files lie, for tests in whatever folder."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "deploy" / "recipes"
DOCS = ROOT / "docs"
DATA = ROOT / "tests" / "data"
