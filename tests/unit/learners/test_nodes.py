"""On which nodes the ranks start: those that were kept for them, and after a loss any others."""

from ray._private.label_utils import validate_label_selector

from learners.failure import read_failures
from learners.nodes import NODE_ID, ask_for, avoid_lost

A, B = "a1" * 28, "b2" * 28


def test_ranks_start_on_the_nodes_that_were_kept_for_them() -> None:
    assert ask_for([A, A, B]) == [{NODE_ID: A}, {NODE_ID: A}, {NODE_ID: B}]
    assert ask_for([]) is None


def test_after_a_loss_they_start_anywhere_else_and_do_not_wait_for_the_dead() -> None:
    assert avoid_lost([A, B], [A, B, "c3"]) is None
    assert avoid_lost([], ["c3"]) is None
    one, two = avoid_lost([A, A, B], [B]), avoid_lost([B, A], ["c3"])
    assert one == {NODE_ID: f"!in({A})"} and two == {NODE_ID: f"!in({A},{B})"}
    for selector in (one, two):
        assert validate_label_selector(selector) is None, "Ray takes it"


def test_a_rank_that_died_with_its_node_is_placed() -> None:
    text = "The actor died unexpectedly before finishing this task.\n\tpid: 11\n\tip: 10.213.0.2\nIts node has died."
    (failure,) = read_failures("attacker", {0: RuntimeError(text)})
    assert failure.node == "10.213.0.2" and "on node 10.213.0.2" in str(failure)
    (unknown,) = read_failures("attacker", {0: RuntimeError("gone")})
    assert unknown.node == ""
