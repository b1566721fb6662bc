"""The embedded sandbox of two base players: its folder, the key of that folder, and how it is built.

`store` makes the folder. The key is a digest of everything that shapes a player, so the players in a folder never change while a
run uses them. The sandbox's judge has a key of its own (`judge_cache`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cluster.sandbox.world
from cluster.sandbox import store
from cluster.sandbox.store import cache_root
from cluster.sandbox.world import heldout_seeds, train_seeds
from cluster.waiting import Note
from protocol.prompts import attacker_messages, defender_messages
from protocol.roles import CATEGORIES, PLAYERS
from protocol.types import Seed

BUILD_DEADLINE_S = 600.0  # it takes 40 s on two idle cores
SOURCES = ("replies.py", "samples.py", "tokenizer.py", "tiny_qwen.py", "pretrain.py")


@dataclass(frozen=True, slots=True)
class SandboxPaths:
    """A built sandbox: two Hugging Face folders and two seed files (JSONL of `{"prompt", "category"}`)."""

    attacker: Path
    defender: Path
    root: Path

    @property
    def train_seeds(self) -> Path:
        return self.root / "train_seeds.jsonl"

    @property
    def heldout_seeds(self) -> Path:
        return self.root / "heldout_seeds.jsonl"


def content_key() -> str:
    """Changes with the world, the base players, the sandbox's prompts, and the libraries that train."""
    here = Path(__file__).parent
    parts = [Path(cluster.sandbox.world.__file__).read_text(), *((here / name).read_text() for name in SOURCES)]
    chats = [attacker_messages(Seed("", "seed", category), "sandbox", "think_prompt") for category in CATEGORIES]
    parts.append(json.dumps([*chats, defender_messages("attack", "sandbox", "plain")]))
    return store.digest(parts)


def ensure_sandbox(root: Path | None = None, note: Note = lambda far: None) -> SandboxPaths:
    """The sandbox's folders, built now if this machine has not built them yet (about 40 s).

    Args:
        root: where sandboxes are cached; `cache_root()` if None.
        note: is told how far the training is.

    Raises:
        UserError: the cache cannot be written.
        RuntimeError: a model could not be pre-trained; the message ends with its process's last lines.
    """
    root = cache_root() if root is None else root
    folder = store.build_once(
        root, f"sandbox-{content_key()}", lambda draft: _build(draft, note), BUILD_DEADLINE_S, note
    )
    return SandboxPaths(attacker=folder / "attacker", defender=folder / "defender", root=folder)


def _build(draft: Path, note: Note) -> None:
    _pretrain(draft, note)
    _write_seeds(draft / "train_seeds.jsonl", train_seeds())
    _write_seeds(draft / "heldout_seeds.jsonl", heldout_seeds())


def _pretrain(draft: Path, note: Note) -> None:
    """Both players at once, each in its own one-thread process: faster on two cores."""
    commands = {str(player): ("cluster.sandbox.pretrain", player, str(draft / player)) for player in PLAYERS}
    store.train_in_processes(commands, draft, 1, BUILD_DEADLINE_S, note)


def _write_seeds(path: Path, seeds: Sequence[Seed]) -> None:
    lines = [json.dumps({"prompt": seed.text, "category": seed.category}) for seed in seeds]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
