"""What a group's end says: one line with role, rank and node, and each rank's traceback apart."""

import pickle
import traceback

import pytest
import structlog
from ray.exceptions import RayTaskError, WorkerCrashedError

from learners import fit
from learners.failure import GroupFailed, RankError, rank_error, read_failures

ATTACK = "an attack"


class Unpicklable(Exception):
    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one} {two}\nmore")
        self.lock = (lambda: one, two)


def fail() -> None:
    raise Unpicklable("no", ATTACK)


def raised(node: str) -> RankError:
    try:
        fail()
    except Unpicklable as error:
        made: RankError = pickle.loads(pickle.dumps(rank_error(error, node)))
        return made
    raise AssertionError


def test_a_rank_says_where_it_was_and_what_it_raised_whatever_that_was() -> None:
    error = raised("10.0.0.7")
    assert str(error) == "Unpicklable (node 10.0.0.7)"
    assert "in fail" in error.trail and ATTACK not in error.trail


def test_a_group_names_its_lowest_rank_and_counts_the_others() -> None:
    group = GroupFailed(read_failures("defender", {3: raised("10.0.0.9"), 1: raised("10.0.0.7")}))
    again = pickle.loads(pickle.dumps(group))
    assert str(again) == (
        "learner-defender-1 (rank 1) on node 10.0.0.7: Unpicklable; see logs/learner-defender-1.log; "
        "and 1 more of its ranks"
    )
    assert [f.node for f in again.failures] == ["10.0.0.7", "10.0.0.9"]
    assert "in fail" in again.failures[1].traceback


def test_a_process_that_died_has_no_node_of_its_own() -> None:
    (died,) = read_failures("attacker", {0: WorkerCrashedError()})
    assert str(died).startswith("learner-attacker-0 (rank 0): WorkerCrashedError: The worker died unexpectedly")
    assert str(died).endswith("; see logs/learner-attacker-0.log")


def test_what_ray_train_wraps_is_taken_out() -> None:
    wrapped = Exception("Traceback ...")
    wrapped._base_exc = raised("10.0.0.7")  # type: ignore[attr-defined]
    assert [f.error for f in read_failures("defender", {0: wrapped})] == ["Unpicklable"]


def test_what_torch_says_of_a_device_is_told() -> None:
    assert rank_error(RuntimeError("CUDA error: no kernel image\nmore"), "n").error == (
        "RuntimeError: CUDA error: no kernel image"
    )


def test_of_a_remote_error_the_cause_is_told_not_the_head_of_its_traceback() -> None:
    text = 'Traceback (most recent call last):\n  File "/x/actor.py", line 7, in lease\n    raise E(t)\nValueError: an attack'
    remote = RayTaskError("lease", text, ValueError("an attack"), "p", 1, "ip")
    assert rank_error(remote, "n").error == "ValueError at /x/actor.py:7 lease"


def test_neither_a_ranks_log_nor_what_leaves_it_quotes_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train logs the traceback of what a rank raises, its causes with it."""

    def learn(*_: object) -> None:
        raise KeyError(ATTACK)

    monkeypatch.setattr(fit, "learn", learn)
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.7")
    arguments = {"on_rank": None, "spec": None, "source": None, "sink": None}
    with structlog.testing.capture_logs() as logs, pytest.raises(RankError) as raised_:
        fit._rank_main(arguments)
    told = "".join(traceback.format_exception(raised_.value))
    (entry,) = logs
    assert entry["exception"].endswith("\nKeyError") and "KeyError (node 10.0.0.7)" in told
    assert ATTACK not in f"{entry}{told}"
