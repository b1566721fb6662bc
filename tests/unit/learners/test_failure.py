"""What a group's end says: one line with role, rank and node, and each rank's traceback apart."""

import pickle

from learners.failure import GroupFailed, RankError, rank_error, read_failures


class Unpicklable(Exception):
    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one} {two}\nmore")
        self.lock = (lambda: one, two)


def fail() -> None:
    raise Unpicklable("no", "memory")


def raised(node: str) -> RankError:
    try:
        fail()
    except Unpicklable as error:
        made: RankError = pickle.loads(pickle.dumps(rank_error(error, node)))
        return made
    raise AssertionError


def test_a_rank_says_where_it_was_and_what_it_raised_whatever_that_was() -> None:
    error = raised("10.0.0.7")
    assert str(error) == "Unpicklable: no memory (node 10.0.0.7)"
    assert "in fail" in error.trail and "more" in error.trail


def test_a_group_names_its_lowest_rank_and_counts_the_others() -> None:
    group = GroupFailed(read_failures("defender", {3: raised("10.0.0.9"), 1: raised("10.0.0.7")}))
    again = pickle.loads(pickle.dumps(group))
    assert str(again) == (
        "learner-defender-1 (rank 1) on node 10.0.0.7: Unpicklable: no memory; see logs/learner-defender-1.log; "
        "and 1 more of its ranks"
    )
    assert [f.node for f in again.failures] == ["10.0.0.7", "10.0.0.9"]
    assert "in fail" in again.failures[1].traceback


def test_a_process_that_died_has_no_node_of_its_own() -> None:
    (died,) = read_failures("attacker", {0: RuntimeError("The actor died because its process was killed\n pid: 7")})
    assert str(died) == (
        "learner-attacker-0 (rank 0): RuntimeError: The actor died because its process was killed; "
        "see logs/learner-attacker-0.log"
    )


def test_of_a_remote_error_the_cause_is_told_not_the_head_of_its_traceback() -> None:
    remote = RuntimeError("ray::ReplayBuffer.lease()\nTraceback (most recent call last):\n  File 'x'\nValueError: gone")
    assert rank_error(remote, "n").error == "RuntimeError: ValueError: gone"
