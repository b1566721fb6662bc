"""The Arrow schema of a replay row: one judged group, for one player (DESIGN.md, "Contracts").

DPO, IPO and GRPO all read it. The schema's number is written into the file's metadata; an older or newer file is refused in
words. Texts are stored so that a person can read a run; nothing here is ever logged.
"""

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal

import pyarrow as pa

from protocol.errors import UserError
from protocol.types import Group, as_array

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
        ("judge_id", pa.string()),  # who gave the verdicts; "": nobody did
        ("rubrics", pa.list_(pa.string())),  # of the verdicts that were given
        ("prompt_ids", pa.list_(pa.int32())),
        ("items", pa.list_(ITEM)),
        ("preferences", pa.list_(PREFERENCE)),
        ("verdicts", pa.list_(pa.string())),  # raw verdict texts
    ],
    metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode()},
)


def to_batch(groups: Sequence[Group]) -> pa.RecordBatch:
    """Groups as a record batch of `SCHEMA`, one row each, in order."""
    items = [item for g in groups for item in g.items]
    completions = [item.completion for item in items]
    preferences = [p for g in groups for p in g.preferences]
    columns = {
        "row_id": [g.row_id for g in groups],
        "game_id": [g.game_id for g in groups],
        "player": [g.player for g in groups],
        "seed_id": [g.seed_id for g in groups],
        "category": [g.category for g in groups],
        "version": [g.version for g in groups],
        "opponent_version": [g.opponent_version for g in groups],
        "judge_id": [_judge_of(g) for g in groups],
        "rubrics": [sorted({v.rubric for v in g.verdicts if v.failure is None}) for g in groups],
        "prompt_ids": _numbers("i", pa.int32(), [g.items[0].completion.prompt_ids for g in groups]),
        "items": _lists(
            [len(g.items) for g in groups],
            _structs(
                ITEM,
                {
                    "token_ids": _numbers("i", pa.int32(), [c.token_ids for c in completions]),
                    "logprobs": _numbers("f", pa.float32(), [c.logprobs for c in completions]),
                    "state": [item.state for item in items],
                    "reward": [item.reward for item in items],
                    "first_version": [c.first_version for c in completions],
                    "last_version": [c.last_version for c in completions],
                    "text": [c.text for c in completions],
                },
            ),
        ),
        "preferences": _lists(
            [len(g.preferences) for g in groups],
            _structs(
                PREFERENCE,
                {
                    "i": [p.i for p in preferences],
                    "j": [p.j for p in preferences],
                    "forward_i": [p.forward[0] for p in preferences],
                    "forward_j": [p.forward[1] for p in preferences],
                    "swapped_i": [None if p.swapped is None else p.swapped[0] for p in preferences],
                    "swapped_j": [None if p.swapped is None else p.swapped[1] for p in preferences],
                    "winner": [p.winner for p in preferences],
                    "agreed": [p.agreed for p in preferences],
                },
            ),
        ),
        "verdicts": [[v.raw for v in g.verdicts] for g in groups],
    }
    return pa.RecordBatch.from_arrays([_array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)


def _judge_of(group: Group) -> str:
    """A failure names nobody who judged: it may come from the pool, for a judge that is down."""
    return next((v.judge_id for v in group.verdicts if v.failure is None), "")


def _array(values: Any, of: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, of)


def _structs(of: pa.StructType, columns: dict[str, Any]) -> pa.StructArray:
    fields = list(of)
    return pa.StructArray.from_arrays([_array(columns[f.name], f.type) for f in fields], fields=fields)


def _lists(lengths: Sequence[int], values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array([0, *accumulate(lengths)], pa.int32()), values)


def _numbers(code: Literal["i", "f"], of: pa.DataType, rows: Sequence["array[Any]"]) -> pa.ListArray:
    """Lists of numbers, copied once as bytes."""
    lengths = [len(row) for row in rows]
    packed = b"".join([as_array(code, row) for row in rows])
    return _lists(lengths, pa.Array.from_buffers(of, sum(lengths), [None, pa.py_buffer(packed)]))


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
