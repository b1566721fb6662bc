"""What travels comes out as it went in, and quicker than a frozen dataclass by itself."""

import pickle
from dataclasses import dataclass, field

import pytest

from protocol.exchange import Answer, Batch, Posted, Replies, Vitals
from protocol.pickling import pickled_by_fields
from protocol.types import Ask, Completion, JudgeRequest, Sampling, Verdict

ASK = Ask("a", ({"role": "user", "content": "x"},), (1, 2), Sampling(0.6, 0.9, 16))
TRAVELLERS = [
    Batch((Posted(1, 2, ASK),), (7,)),
    Replies(Vitals(True, running=3, steps=9), (Answer(1, [Completion.of([1], [2, 3], [0.5, 0.25], "x")]),), (1,), (2,)),
    JudgeRequest("compliance", "benign", "fix a bike", ("reply",), seed=3),
    Verdict("j", "r@1", scores=(1.0, 2.0)),
]


@pytest.mark.parametrize("value", TRAVELLERS, ids=lambda value: type(value).__name__)
def test_it_comes_out_as_it_went_in(value: object) -> None:
    again = pickle.loads(pickle.dumps(value))
    assert again == value and type(again) is type(value)


def test_one_field_and_none() -> None:
    assert pickle.loads(pickle.dumps(Single(("a", "b")))) == Single(("a", "b"))
    with pytest.raises(TypeError, match="every field"):

        @pickled_by_fields
        @dataclass(frozen=True)
        class Partly:
            given: int
            made: int = field(default=0, init=False)


@pickled_by_fields
@dataclass(frozen=True, slots=True)
class Single:
    words: tuple[str, ...]
