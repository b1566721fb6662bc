"""A native transport that fails twice is off until the set of workers changes."""

from cluster.publish.fallback import Fallback


def test_two_failures_in_a_row_switch_it_off_once() -> None:
    fallback = Fallback("nccl")
    assert not fallback.record(1, False) and fallback.off_since is None
    assert fallback.record(2, False) and fallback.off_since == 2
    assert not fallback.record(3, False), "it is said once"
    assert (fallback.off_since, fallback.failed) == (2, 3)


def test_a_version_that_arrives_starts_the_count_anew() -> None:
    fallback = Fallback("nccl")
    for version, sent in enumerate([False, True, False, True, False], 1):
        fallback.record(version, sent)
    assert fallback.off_since is None and fallback.failed == 3


def test_the_first_word_about_a_version_counts() -> None:
    fallback = Fallback("ipc")
    fallback.record(1, False)  # a worker did not take it
    assert not fallback.record(1, False), "and the learner gave it up therefore"
    assert fallback.failures == 1


def test_a_change_of_the_workers_switches_it_on_again() -> None:
    fallback = Fallback("nccl")
    assert not fallback.note_change()
    fallback.record(1, False)
    fallback.record(2, False)
    assert fallback.note_change() and fallback.off_since is None
    assert not fallback.record(3, False), "one failure of the new set"
    assert fallback.record(4, False) and fallback.failed == 4
