"""Delivery: the newest version to every worker, one push at a time, and a replacement for whoever fails."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.publish.delivery import Delivery, Push


def delivery(*workers: str) -> Delivery:
    d = Delivery(deadline_s=10.0, start_deadline_s=100.0)
    for name in workers:
        d.record_start(name, d.register("attacker", name, 0.0), 0)
    return d


def test_every_healthy_worker_gets_the_newest_version_once() -> None:
    d = delivery("a", "b")
    assert d.publish("attacker", 1)
    pushes = d.next_pushes(5.0)
    assert [(p.worker, p.version, p.deadline_s) for p in pushes] == [("a", 1, 15.0), ("b", 1, 15.0)]
    assert d.next_pushes(5.0) == []
    for p in pushes:
        assert not d.is_delivered("attacker", 1)
        d.record_load(p.worker, p.ticket, 1)
    assert d.is_delivered("attacker", 1) and not d.is_delivered("attacker", 2)


def test_versions_that_queue_up_are_skipped_for_the_newest() -> None:
    d = delivery("a")
    d.publish("attacker", 1)
    (first,) = d.next_pushes(0.0)
    for version in (2, 3, 4):
        d.publish("attacker", version)
    assert d.next_pushes(0.0) == []
    d.record_load("a", first.ticket, 1)
    assert [p.version for p in d.next_pushes(0.0)] == [4]
    assert (d.published("attacker"), d.superseded("attacker")) == (4, 2)


def test_an_older_version_changes_nothing() -> None:
    d = delivery("a")
    assert d.publish("attacker", 3) and not d.publish("attacker", 3) and not d.publish("attacker", 2)
    assert d.newest("attacker") == 3 and d.newest("defender") == 0


def test_a_worker_that_fails_is_replaced_and_healthy_only_once_it_names_its_version() -> None:
    d = delivery("a", "b")
    d.publish("attacker", 1)
    a, b = d.next_pushes(0.0)
    d.record_load("b", b.ticket, 1)
    again = d.evict("a", a.ticket, "deadline", 10.0)
    assert again is not None
    assert d.workers("attacker")["a"].evictions == {"deadline": 1}
    d.publish("attacker", 2)
    assert [p.worker for p in d.next_pushes(11.0)] == ["b"]
    assert not d.is_delivered("attacker", 1)
    assert not d.record_load("a", a.ticket, 1), "the old process's answer came too late to count"
    assert d.record_start("a", again, 1)
    assert [(p.worker, p.version) for p in d.next_pushes(20.0)] == [("a", 2)]


def test_an_eviction_about_something_long_over_is_ignored() -> None:
    d = delivery("a")
    d.publish("attacker", 1)
    (push,) = d.next_pushes(0.0)
    d.record_load("a", push.ticket, 1)
    assert d.evict("a", push.ticket, "deadline", 10.0) is None
    assert d.workers("attacker")["a"].state == "healthy"


def test_a_start_that_fails_is_tried_again() -> None:
    d = delivery()
    first = d.register("defender", "x", 0.0)
    second = d.evict("x", first, "start_deadline", 100.0)
    assert second is not None and d.workers("defender")["x"].deadline_s == 200.0
    assert not d.record_start("x", first, 0)
    assert d.record_start("x", second, 5)


def test_a_healthy_worker_that_does_not_serve_starts_anew_with_what_is_for_it() -> None:
    d = delivery("a")
    d.publish("attacker", 1)
    (push,) = d.next_pushes(0.0)
    d.record_load("a", push.ticket, 1)
    ticket = d.retire("a", "stuck", 5.0)
    assert ticket is not None and ticket > push.ticket
    view = d.workers("attacker")["a"]
    assert (view.state, view.version, view.evictions) == ("starting", -1, {"stuck": 1})
    assert not d.is_delivered("attacker", 1) and d.next_pushes(6.0) == []
    assert d.choose("a") == 1 and 1 in d.needed_versions("attacker")
    assert d.record_start("a", ticket, 1) and d.is_delivered("attacker", 1)


def test_a_push_or_start_that_is_under_way_has_a_deadline_of_its_own() -> None:
    d = delivery("a")
    d.publish("attacker", 1)
    (push,) = d.next_pushes(0.0)
    assert d.retire("a", "stuck", 5.0) is None
    again = d.evict("a", push.ticket, "deadline", 10.0)
    assert d.retire("a", "silent", 11.0) is None
    assert d.workers("attacker")["a"].evictions == {"deadline": 1}
    assert again is not None and d.record_start("a", again, 1)


def test_nothing_is_delivered_where_there_are_no_workers() -> None:
    assert not delivery("a").is_delivered("defender", 0)


def test_what_a_starting_worker_reads_is_needed_until_it_has_started() -> None:
    d = delivery()
    d.publish("attacker", 1)
    ticket = d.register("attacker", "a", 0.0)
    assert d.begin_load("a", d.choose("a"))
    for version in (2, 3):
        d.publish("attacker", version)
    assert d.needed_versions("attacker") == {1, 3}
    assert d.record_start("a", ticket, 1) and d.needed_versions("attacker") == {3}
    assert not d.begin_load("a", 3), "it does not start"
    again = d.retire("a", "stuck", 5.0)
    assert d.begin_load("a", 3)
    d.publish("attacker", 4)
    assert again is not None and d.evict("a", again, "died", 6.0) is not None
    assert d.needed_versions("attacker") == {4}, "the process that read it is gone"


# -- workers of different ages (`push.to: spread`)


def spread(*periods: int) -> Delivery:
    d = Delivery(deadline_s=10.0, start_deadline_s=100.0)
    for k, period in enumerate(periods):
        d.record_start(f"w{k}", d.register("attacker", f"w{k}", 0.0, period), 0)
    return d


def settle(d: Delivery) -> dict[str, int]:
    """Every push that is due arrives. Gives what each worker serves then."""
    while pushes := d.next_pushes(0.0):
        for push in pushes:
            assert push.version in d.needed_versions("attacker"), "its bytes are still there"
            d.record_load(push.worker, push.ticket, push.version)
    return {name: w.version for name, w in d.workers("attacker").items()}


def test_a_worker_of_period_n_takes_every_nth_version() -> None:
    d = spread(1, 2, 4)
    served = []
    for version in range(1, 9):
        d.publish("attacker", version)
        served.append(tuple(settle(d).values()))
        assert d.is_delivered("attacker", version)
    assert served == [(1, 0, 0), (2, 2, 0), (3, 2, 0), (4, 4, 4), (5, 4, 4), (6, 6, 4), (7, 6, 4), (8, 8, 8)]


def test_the_last_version_goes_to_all() -> None:
    d = spread(1, 4)
    for version in (1, 2):
        d.publish("attacker", version)
        settle(d)
    d.publish("attacker", 3, last=True)
    assert not d.is_delivered("attacker", 3)
    assert settle(d) == {"w0": 3, "w1": 3} and d.is_delivered("attacker", 3)


def test_a_resumed_run_goes_on_with_what_it_had_whatever_the_period() -> None:
    d = spread(1, 4)
    d.publish("attacker", 2)  # version 0 is the folder's: the run had left it behind
    assert settle(d) == {"w0": 2, "w1": 2}
    d.publish("attacker", 3)
    assert settle(d) == {"w0": 3, "w1": 2}


def test_a_slow_worker_still_gets_its_version_when_newer_ones_are_out() -> None:
    d = spread(1, 2)
    d.publish("attacker", 1)
    slow = d.register("attacker", "slow", 0.0, 2)
    for version in (2, 3):
        d.publish("attacker", version)
        d.next_pushes(0.0)
    assert d.choose("slow") == 2 and {2, 3} <= d.needed_versions("attacker")
    assert d.record_start("slow", slow, 2)


@given(
    periods=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=4),
    first=st.integers(1, 20),
    events=st.lists(
        st.tuples(st.sampled_from(["publish", "skip", "push", "answer", "fail", "start"]), st.integers(0, 9))
    ),
)
def test_whatever_happens_bytes_are_there_versions_rise_and_free_workers_keep_their_age(
    periods: list[int], first: int, events: list[tuple[str, int]]
) -> None:
    d = Delivery(deadline_s=10.0, start_deadline_s=100.0)
    starts = {f"w{k}": d.register("attacker", f"w{k}", 0.0, period) for k, period in enumerate(periods)}
    pushes: dict[str, Push] = {}
    version = first - 1
    held: set[int] = set()  # what a publisher has that drops everything that is not needed
    for what, k in events:
        name = f"w{k % len(periods)}"
        if what in ("publish", "skip"):
            version += 1 if what == "publish" else 2  # the learner's own queue displaced one
            assert d.publish("attacker", version)
            held = (held | {version}) & d.needed_versions("attacker")
        elif what == "push":
            for push in d.next_pushes(0.0):
                assert push.version > d.workers("attacker")[push.worker].version and push.version in held
                pushes[push.worker] = push
        elif what == "start" and name in starts:
            chosen = d.choose(name)
            assert chosen == 0 or chosen in held
            assert d.record_start(name, starts.pop(name), chosen)
        elif name in pushes and what in ("answer", "fail"):
            push = pushes.pop(name)
            assert push.version in held, "nobody wrote over it while it was loaded"
            if what == "answer":
                assert d.record_load(name, push.ticket, push.version)
            else:
                again = d.evict(name, push.ticket, "died", 0.0)
                assert again is not None
                starts[name] = again
    for name, ticket in starts.items():
        d.record_start(name, ticket, d.choose(name))
    for name, push in pushes.items():
        d.record_load(name, push.ticket, push.version)
    settle(d)
    newest = d.newest("attacker")
    assert d.is_delivered("attacker", newest)
    for worker in d.workers("attacker").values():
        assert newest - worker.version < worker.period
        assert newest == 0 or first == 1 or worker.version >= first, "a resumed run has nothing older"
    assert len(d.needed_versions("attacker")) <= 1 + len(set(periods))
