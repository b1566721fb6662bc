"""A completion's numbers: what they are made of, when two are equal, and that they travel as bytes."""

import pickle
import random
from array import array

import numpy as np
import pytest

from protocol.types import Completion


def test_any_numbers_make_the_same_completion() -> None:
    made = [
        Completion.of((1, 2), (3, 4), (-0.5, -1.0), "t"),
        Completion.of([1, 2], range(3, 5), [-0.5, -1.0], "t"),
        Completion.of(np.array([1, 2]), np.array([3, 4], np.int32), np.array([-0.5, -1.0]), "t"),
        Completion.of(array("q", [1, 2]), array("i", [3, 4]), array("d", [-0.5, -1.0]), "t"),
    ]
    assert all(c == made[0] for c in made)
    for c in made:
        assert (c.prompt_ids.typecode, c.token_ids.typecode, c.logprobs.typecode) == ("i", "i", "f")
    assert made[0] != Completion.of((1, 2), (3, 5), (-0.5, -1.0), "t")
    assert made[0].token_ids != (3, 4) and made[0].token_ids.tolist() == [3, 4]
    with pytest.raises(TypeError, match="unhashable"):
        hash(made[0])


def test_an_array_of_the_right_type_is_shared_and_not_copied() -> None:
    prompt = array("i", range(300))
    first, second = (Completion.of(prompt, [k], [0.0]) for k in range(2))
    assert first.prompt_ids is second.prompt_ids is prompt
    alone, both = len(pickle.dumps(first)), len(pickle.dumps([first, second]))
    assert both - alone < prompt.itemsize * len(prompt)


def test_a_token_that_is_no_int32_is_an_error() -> None:
    with pytest.raises(OverflowError):
        Completion.of([2**31])


def test_a_pickled_number_takes_four_bytes_whatever_it_is() -> None:
    rng = random.Random(0)
    ids, logprobs = [rng.randrange(2**31) for _ in range(2048)], [-rng.expovariate(1.0) for _ in range(2048)]
    made = Completion.of([], ids, logprobs)
    sent = pickle.dumps(made)
    assert len(sent) <= 8 * 2048 + 512
    back = pickle.loads(sent)
    assert back == made and back.logprobs.tolist() == [float(np.float32(x)) for x in logprobs]
