"""Delivery: the newest version to every worker, one push at a time, and a replacement for whoever fails."""

from cluster.delivery import Delivery


def delivery(*workers: str) -> Delivery:
    d = Delivery(deadline_s=10.0, start_deadline_s=100.0)
    for name in workers:
        d.started(name, d.register("attacker", name, 0.0), 0)
    return d


def test_every_healthy_worker_gets_the_newest_version_once() -> None:
    d = delivery("a", "b")
    assert d.publish("attacker", 1)
    pushes = d.next_pushes(5.0)
    assert [(p.worker, p.version, p.deadline_s) for p in pushes] == [("a", 1, 15.0), ("b", 1, 15.0)]
    assert d.next_pushes(5.0) == []
    for p in pushes:
        assert not d.delivered("attacker", 1)
        d.loaded(p.worker, p.ticket, 1)
    assert d.delivered("attacker", 1) and not d.delivered("attacker", 2)


def test_versions_that_queue_up_are_skipped_for_the_newest() -> None:
    d = delivery("a")
    d.publish("attacker", 1)
    (first,) = d.next_pushes(0.0)
    for version in (2, 3, 4):
        d.publish("attacker", version)
    assert d.next_pushes(0.0) == []
    d.loaded("a", first.ticket, 1)
    assert [p.version for p in d.next_pushes(0.0)] == [4]
    assert d.counts("attacker") == {"published": 4, "superseded": 2}


def test_an_older_version_changes_nothing() -> None:
    d = delivery("a")
    assert d.publish("attacker", 3) and not d.publish("attacker", 3) and not d.publish("attacker", 2)
    assert d.newest("attacker") == 3 and d.newest("defender") == 0


def test_a_worker_that_fails_is_replaced_and_healthy_only_once_it_names_its_version() -> None:
    d = delivery("a", "b")
    d.publish("attacker", 1)
    a, b = d.next_pushes(0.0)
    d.loaded("b", b.ticket, 1)
    again = d.evict("a", a.ticket, "deadline", 10.0)
    assert again is not None
    assert d.workers("attacker")["a"].evictions == {"deadline": 1}
    d.publish("attacker", 2)
    assert [p.worker for p in d.next_pushes(11.0)] == ["b"]
    assert not d.delivered("attacker", 1)
    assert not d.loaded("a", a.ticket, 1), "the old process's answer came too late to count"
    assert d.started("a", again, 1)
    assert [(p.worker, p.version) for p in d.next_pushes(20.0)] == [("a", 2)]


def test_an_eviction_about_something_long_over_is_ignored() -> None:
    d = delivery("a")
    d.publish("attacker", 1)
    (push,) = d.next_pushes(0.0)
    d.loaded("a", push.ticket, 1)
    assert d.evict("a", push.ticket, "deadline", 10.0) is None
    assert d.workers("attacker")["a"].state == "healthy"


def test_a_start_that_fails_is_tried_again() -> None:
    d = delivery()
    first = d.register("defender", "x", 0.0)
    second = d.evict("x", first, "start_deadline", 100.0)
    assert second is not None and d.workers("defender")["x"].deadline_s == 200.0
    assert not d.started("x", first, 0)
    assert d.started("x", second, 5)


def test_nothing_is_delivered_where_there_are_no_workers() -> None:
    assert not delivery("a").delivered("defender", 0)
