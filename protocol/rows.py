"""The Arrow schema of a replay row: one judged group, for one player (DESIGN.md, "Contracts").

DPO, IPO and GRPO all read it. The schema's number is written into the file's metadata; an older or newer file is refused in
words. Texts are stored so that a person can read a run; nothing here is ever logged.
"""

from collections.abc import Sequence

import pyarrow as pa

from protocol.errors import UserError
from protocol.types import Group, Item, Preference

SCHEMA_VERSION = 1
_VERSION_KEY = b"advgame.replay.schema"

ITEM = pa.struct(
    [
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),  # same length as token_ids; the sampler's, temperature 1
        ("state", pa.string()),
        ("reward", pa.float32()),  # null: excluded from learning
        ("first_version", pa.int32()),
        ("last_version", pa.int32()),
        ("text", pa.string()),
    ]
)
PREFERENCE = pa.struct(
    [
        ("i", pa.int16()),
        ("j", pa.int16()),
        ("forward_i", pa.float32()),
        ("forward_j", pa.float32()),
        ("swapped_i", pa.float32()),  # null: only one order was asked
        ("swapped_j", pa.float32()),
        ("winner", pa.int16()),  # null: a tie
        ("agreed", pa.bool_()),
    ]
)
SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("game_id", pa.int64()),
        ("player", pa.string()),
        ("seed_id", pa.string()),
        ("category", pa.string()),
        ("version", pa.int32()),  # this player's oldest version in the row
        ("opponent_version", pa.int32()),  # null: the opponent was never asked
        ("judge_id", pa.string()),
        ("rubrics", pa.list_(pa.string())),
        ("prompt_ids", pa.list_(pa.int32())),
        ("items", pa.list_(ITEM)),
        ("preferences", pa.list_(PREFERENCE)),
        ("verdicts", pa.list_(pa.string())),  # raw verdict texts
    ],
    metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode()},
)


def _item(item: Item) -> dict[str, object]:
    c = item.completion
    return {
        "token_ids": c.token_ids,
        "logprobs": c.logprobs,
        "state": item.state,
        "reward": item.reward,
        "first_version": c.first_version,
        "last_version": c.last_version,
        "text": c.text,
    }


def _preference(p: Preference) -> dict[str, object]:
    swapped_i, swapped_j = p.swapped if p.swapped is not None else (None, None)
    return {
        "i": p.i,
        "j": p.j,
        "forward_i": p.forward[0],
        "forward_j": p.forward[1],
        "swapped_i": swapped_i,
        "swapped_j": swapped_j,
        "winner": p.winner,
        "agreed": p.agreed,
    }


def to_batch(groups: Sequence[Group]) -> pa.RecordBatch:
    """Groups as a record batch of `SCHEMA`, one row each, in order."""
    rows = [
        {
            "row_id": g.row_id,
            "game_id": g.game_id,
            "player": g.player,
            "seed_id": g.seed_id,
            "category": g.category,
            "version": g.version,
            "opponent_version": g.opponent_version,
            "judge_id": g.verdicts[0].judge_id if g.verdicts else "",
            "rubrics": sorted({v.rubric for v in g.verdicts}),
            "prompt_ids": g.items[0].completion.prompt_ids,
            "items": [_item(item) for item in g.items],
            "preferences": [_preference(p) for p in g.preferences],
            "verdicts": [v.raw for v in g.verdicts],
        }
        for g in groups
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def check_schema(schema: pa.Schema, where: str) -> None:
    """Raises `UserError` unless `schema` is the one this code writes. `where` names the file in the message."""
    found = (schema.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if found != str(SCHEMA_VERSION):
        raise UserError(
            f"{where}: replay schema {found}, this version of AdvGame reads {SCHEMA_VERSION}; "
            "start a new run, or resume with the AdvGame that wrote it"
        )
    if not schema.equals(SCHEMA):
        raise UserError(f"{where}: claims replay schema {found} but its columns differ; the file is damaged or foreign")
