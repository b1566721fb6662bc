"""Workers of a version hold the same parameters, or one of them starts anew."""

from cluster.publish.agreement import Agreement

L = "bfloat16-gpu-tp1"


def test_equal_digests_agree_and_other_layouts_are_not_compared() -> None:
    a = Agreement()
    assert a.report("attacker", 1, L, "w0", "x") and a.report("attacker", 1, L, "w1", "x")
    assert a.report("attacker", 1, "float32-cpu-tp1", "w2", "y")
    assert a.report("defender", 1, L, "d0", "z") and a.report("attacker", 2, L, "w1", "other weights")
    assert a.list_dissenters("attacker", 1, L) == []


def test_the_later_of_two_must_not_serve() -> None:
    a = Agreement()
    a.report("attacker", 1, L, "w0", "x")
    assert not a.report("attacker", 1, L, "w1", "y")
    assert not a.report("attacker", 1, L, "w1", "y"), "said twice of one load: before it serves, and with its report"
    assert a.report("attacker", 1, L, "w0", "x")


def test_a_load_that_is_right_the_second_time_agrees() -> None:
    a = Agreement()
    a.report("attacker", 1, L, "w0", "x")
    a.report("attacker", 1, L, "w1", "torn")
    a.forget("w1")
    assert a.report("attacker", 1, L, "w1", "x") and a.list_dissenters("attacker", 1, L) == []


def test_one_that_is_outvoted_dissents_though_it_came_first() -> None:
    a = Agreement()
    a.report("attacker", 1, L, "w0", "torn")
    assert not a.report("attacker", 1, L, "w1", "x")
    a.forget("w1")  # it starts anew
    assert a.report("attacker", 1, L, "w1", "x"), "twice the same, from two loads"
    assert a.list_dissenters("attacker", 1, L) == ["w0"]


def test_old_versions_are_forgotten() -> None:
    a = Agreement()
    for version in range(1, 100):
        a.report("attacker", version, L, "w0", str(version))
    assert len(a._counts) <= 10
