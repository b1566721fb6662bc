"""Seed files: bad lines are counted with their number, the rest is read."""

from pathlib import Path

import pytest

from protocol.errors import UserError
from protocol.seeds import read_seeds


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "seeds.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_bad_lines_are_quarantined_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"prompt": "fix a bike", "category": "benign"}',
        "not json",
        '{"prompt": "x", "category": "neutral"}',
        "",
        '{"prompt": "", "category": "benign"}',
        '{"prompt": "fix a bike", "category": "benign"}',
        "[1]",
        '{"prompt": "x \\ud800", "category": "benign"}',
        "[" * 100_000,
        '{"prompt": "x", "category": ["benign"]}',
        '{"prompt": "open a safe", "category": "harmful"}',
    )
    seeds, bad = read_seeds(path, "seeds.train")
    assert [(s.text, s.category) for s in seeds] == [("fix a bike", "benign"), ("open a safe", "harmful")]
    assert [(b.number, b.reason) for b in bad] == [
        (2, "no JSON"),
        (3, 'category "neutral" is neither of harmful, benign'),
        (5, "no text in `prompt`"),
        (6, "repeats an earlier line"),
        (7, "no JSON object"),
        (8, "text that is no Unicode (a lone surrogate)"),
        (9, "no JSON"),
        (10, 'category ["benign"] is neither of harmful, benign'),
    ]


@pytest.mark.parametrize("lines", [[], ["nonsense", "{}"]])
def test_a_file_without_a_seed_is_the_users_error(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(UserError, match=r"seeds\.train: .* has no seed in it"):
        read_seeds(write(tmp_path, *lines), "seeds.train")


def test_a_missing_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seeds\.train: .* does not exist"):
        read_seeds(tmp_path / "none.jsonl", "seeds.train")
