"""`to_batch` builds by columns; row by row, as Arrow reads Python's dictionaries, it must come to the same."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from protocol.rows import SCHEMA, to_batch
from protocol.types import Completion, Group, Item, Preference, Verdict

INT32 = st.integers(-(2**31), 2**31 - 1)
SINGLE = st.floats(allow_nan=False, width=32)
TEXT = st.text(max_size=8)
SCORES = st.tuples(SINGLE, SINGLE)


@st.composite
def items(draw: Any) -> Item:
    ids = draw(st.lists(INT32, max_size=5))
    logprobs = draw(st.lists(SINGLE, min_size=len(ids), max_size=len(ids)))
    versions = draw(st.integers(0, 2**31 - 1)), draw(st.integers(0, 2**31 - 1))
    made = Completion.of(draw(st.lists(INT32, max_size=3)), ids, logprobs, draw(TEXT), "stop", *versions)
    return Item(made, draw(TEXT), draw(st.none() | SINGLE), draw(st.none() | TEXT))


PREFERENCES = st.builds(
    Preference,
    st.integers(0, 99),
    st.integers(0, 99),
    SCORES,
    st.none() | SCORES,
    st.none() | st.integers(0, 99),
    st.booleans(),
)
VERDICTS = st.builds(Verdict, TEXT, TEXT, failure=TEXT, raw=TEXT) | st.builds(
    Verdict, TEXT, TEXT, faithful=st.booleans(), raw=TEXT
)
GROUPS = st.builds(
    Group,
    st.integers(0, 2**63 - 1),
    st.sampled_from(["attacker", "defender"]),
    st.integers(0, 9),
    TEXT,
    st.sampled_from(["harmful", "benign"]),
    st.lists(items(), min_size=1, max_size=3).map(tuple),
    st.lists(PREFERENCES, max_size=3).map(tuple),
    st.lists(VERDICTS, max_size=3).map(tuple),
    st.none() | st.integers(0, 2**31 - 1),
)


def row(g: Group) -> dict[str, Any]:
    return {
        "row_id": g.row_id,
        "game_id": g.game_id,
        "player": g.player,
        "seed_id": g.seed_id,
        "category": g.category,
        "version": g.version,
        "opponent_version": g.opponent_version,
        "judge_id": ([v.judge_id for v in g.verdicts if v.failure is None] or [""])[0],
        "rubrics": sorted({v.rubric for v in g.verdicts if v.failure is None}),
        "prompt_ids": g.items[0].completion.prompt_ids.tolist(),
        "items": [
            {
                "token_ids": item.completion.token_ids.tolist(),
                "logprobs": item.completion.logprobs.tolist(),
                "state": item.state,
                "reward": item.reward,
                "first_version": item.completion.first_version,
                "last_version": item.completion.last_version,
                "text": item.completion.text,
            }
            for item in g.items
        ],
        "preferences": [
            {
                "i": p.i,
                "j": p.j,
                "forward_i": p.forward[0],
                "forward_j": p.forward[1],
                "swapped_i": None if p.swapped is None else p.swapped[0],
                "swapped_j": None if p.swapped is None else p.swapped[1],
                "winner": p.winner,
                "agreed": p.agreed,
            }
            for p in g.preferences
        ],
        "verdicts": [v.raw for v in g.verdicts],
    }


@given(st.lists(GROUPS, max_size=4))
def test_by_columns_it_is_the_same_as_row_by_row(groups: list[Group]) -> None:
    batch = to_batch(groups)
    batch.validate(full=True)
    assert batch.schema.equals(SCHEMA, check_metadata=True)
    assert batch.equals(pa.RecordBatch.from_pylist([row(g) for g in groups], schema=SCHEMA))


def test_numbers_of_numpy_and_those_that_are_none_travel_too() -> None:
    made = Completion.of(np.array([7]), np.array([1, 2], np.int32), [np.float32(-0.5), -math.inf])  # type: ignore[list-item]
    (read,) = to_batch([Group(0, "attacker", 0, "s", "benign", (Item(made, "ok", None),), (), (), None)]).to_pylist()
    assert (read["prompt_ids"], read["items"][0]["token_ids"]) == ([7], [1, 2])
    assert read["items"][0]["logprobs"] == [-0.5, -math.inf]


def test_a_rows_judge_is_the_one_that_answered() -> None:
    down = Verdict("none", "none/compliance", failure="judge down")
    unread = Verdict("lm:a@1", "compliance@1", failure="no score")
    said = Verdict("lm:a@1", "compliance@1", scores=(3.0,))
    item = Item(Completion.of([1], [2], [0.0]), "ok", 1.0)
    groups = [
        Group(k, "defender", 0, "s", "benign", (item,), (), v, 0) for k, v in enumerate([(down, said), (said, down)])
    ]
    assert to_batch(groups).column("judge_id").to_pylist() == ["lm:a@1", "lm:a@1"]
    unjudged = [Group(k, "defender", 0, "s", "benign", (item,), (), v, 0) for k, v in enumerate([(down, unread), ()])]
    assert to_batch(unjudged).column("judge_id").to_pylist() == ["", ""]


def test_a_question_that_nobody_answered_adds_no_rubric_to_its_row() -> None:
    made = Completion.of([7], [1], [-0.5], "t")
    down = Verdict("none", "none/faithfulness", failure="judge down: no answer in 5 s")
    good = Verdict("lm:qwen@1a2b3c4d", "standard/compliance.pairwise@1", scores=(3.0, 4.0))
    group = Group(0, "attacker", 0, "s", "benign", (Item(made, "judge_failed", None),), (), (down, good, down), None)
    (row,) = to_batch([group]).to_pylist()
    assert (row["judge_id"], row["rubrics"]) == (good.judge_id, [good.rubric])
