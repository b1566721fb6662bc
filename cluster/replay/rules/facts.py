"""What the replay buffer keeps in memory about a row. It is read from the row's Arrow batch, in the same way when the row arrives
and when it is recovered from disk. Pure."""

from dataclasses import dataclass

import pyarrow as pa

from protocol.preferences import pick_pair
from protocol.recipe import Loss
from protocol.roles import Category
from protocol.types import Preference

_UNREAD = (0.0, 0.0)  # `pick_pair` reads who won, not by how much; the scores stay on disk


@dataclass(frozen=True, slots=True)
class RowFacts:
    """`unlearnable` is the reason for eviction on arrival, or None. `reward` is the mean of the known rewards."""

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
    items, compared = batch.column("items"), batch.column("preferences")
    rewards = pa.ListArray.from_arrays(items.offsets, items.values.field("reward")).to_pylist()
    # By columns, and only those that say who won: reading whole preferences costs more than all the rest of the row.
    i, j, winner = (compared.values.field(name).to_pylist() for name in ("i", "j", "winner"))
    ends = compared.offsets.to_pylist()
    columns = (batch.column(name).to_pylist() for name in ("row_id", "game_id", "version", "category"))
    facts = []
    for (row_id, game_id, version, category), known, start, end in zip(
        zip(*columns, strict=True), rewards, ends[:-1], ends[1:], strict=True
    ):
        pairs = [Preference(i[k], j[k], _UNREAD, None, winner[k], True) for k in range(start, end)]
        facts.append(RowFacts(row_id, game_id, version, category, _unlearnable(known, pairs, loss), _mean(known)))
    return facts


def _unlearnable(rewards: list[float | None], preferences: list[Preference], loss: Loss) -> str | None:
    if loss == "grpo":
        return None if any(r is not None for r in rewards) else "no_reward"
    if pick_pair(rewards, preferences) is not None:
        return None
    return "tie" if sum(r is not None for r in rewards) >= 2 else "no_pair"


def _mean(rewards: list[float | None]) -> float | None:
    known = [r for r in rewards if r is not None]
    return sum(known) / len(known) if known else None
