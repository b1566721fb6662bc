"""What the replay buffer must know about a row without keeping the row: read from an Arrow batch, the same way when it
arrives and when it is recovered from disk. Pure."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from protocol.preferences import pick_pair
from protocol.roles import Category
from protocol.types import Preference

Loss = Literal["dpo", "ipo", "grpo"]


@dataclass(frozen=True, slots=True)
class RowFacts:
    """`category` is the seed's, `unlearnable` the reason for eviction on arrival or None, `reward` the mean known reward."""

    row_id: str
    game_id: int
    version: int
    category: Category
    unlearnable: str | None
    reward: float | None


def read_facts(batch: pa.RecordBatch, loss: Loss) -> list[RowFacts]:
    """One entry for each row of a batch of `protocol.rows.SCHEMA`, in order. Token ids and texts are not touched.

    Args:
        loss: the player's. DPO and IPO need a pair (else `tie` or `no_pair`), GRPO a reward (else `no_reward`).
    """
    items = batch.column("items")
    rewards = pa.ListArray.from_arrays(items.offsets, items.values.field("reward")).to_pylist()
    columns = (batch.column(name).to_pylist() for name in ("row_id", "game_id", "version", "category", "preferences"))
    return [
        RowFacts(row_id, game_id, version, category, _unlearnable(row_rewards, prefs, loss), _mean(row_rewards))
        for row_id, game_id, version, category, prefs, row_rewards in zip(*columns, rewards, strict=True)
    ]


def _unlearnable(
    rewards: list[float | None], preferences: list[dict[str, int | float | None]], loss: Loss
) -> str | None:
    if loss == "grpo":
        return None if any(r is not None for r in rewards) else "no_reward"
    # pick_pair reads who won, not by how much; the scores stay on disk.
    compared = [Preference(int(p["i"] or 0), int(p["j"] or 0), (0.0, 0.0), None, _winner(p), True) for p in preferences]
    if pick_pair(rewards, compared) is not None:
        return None
    return "tie" if sum(r is not None for r in rewards) >= 2 else "no_pair"


def _winner(preference: dict[str, int | float | None]) -> int | None:
    winner = preference["winner"]
    return None if winner is None else int(winner)


def _mean(rewards: list[float | None]) -> float | None:
    known = [r for r in rewards if r is not None]
    return sum(known) / len(known) if known else None
