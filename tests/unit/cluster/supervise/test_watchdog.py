"""When nothing moves: the blocked edge is named, and a run that only gives games up, or stays paused, ends."""

from dataclasses import replace

import pytest

from cluster.supervise.watchdog import Finding, Snapshot, Watchdog

SNAPSHOT = Snapshot(
    now_s=10.0,
    steps={"attacker": 1, "defender": 1},
    games_finished=5,
    games_started=5,
    games_abandoned=0,
    tokens=100,
    verdicts=9,
    held={"attacker": 0, "defender": 0},
    batch={"attacker": 4, "defender": 4},
    healthy_judges=(2, 2),
    healthy_generators={"attacker": (1, 1), "defender": (1, 1)},
    admission="refused",
)


@pytest.mark.parametrize(
    ("change", "edge"),
    [
        ({"healthy_judges": (0, 4)}, "judge pool, 0/4 healthy"),
        ({"healthy_generators": {"attacker": (1, 1), "defender": (0, 1)}}, "defender's generation workers, 0/1"),
        ({"held": {"attacker": 0, "defender": 4}}, "holds 4 games for the defender learner"),
        ({"games_started": 8}, "3 games are in flight"),
        ({}, "no game is dealt: refused"),
    ],
)
def test_the_watchdog_names_the_blocked_edge(change: dict[str, object], edge: str) -> None:
    dog = Watchdog(stall_s=60, abandoned_in_a_row=100)
    now = replace(SNAPSHOT, **change)  # type: ignore[arg-type]
    assert dog.check(now) is None
    assert dog.check(replace(now, now_s=69.0)) is None
    said = dog.check(replace(now, now_s=71.0))
    assert said is not None and edge in said.why and said.still


def test_the_watchdog_is_quiet_while_anything_moves() -> None:
    dog = Watchdog(stall_s=60, abandoned_in_a_row=100)
    assert all(dog.check(replace(SNAPSHOT, now_s=40.0 * k, tokens=k)) is None for k in range(1, 20))


def test_a_run_whose_games_are_all_given_up_ends() -> None:
    dog = Watchdog(stall_s=60, abandoned_in_a_row=100)
    busy = [
        replace(SNAPSHOT, now_s=k, games_started=k, games_abandoned=k, games_finished=k // 50) for k in range(1, 300)
    ]
    assert all(dog.check(s) is None for s in busy)  # every fiftieth is finished
    said = [
        dog.check(replace(busy[-1], now_s=300 + k, games_started=300 + k, games_abandoned=300 + k)) for k in range(100)
    ]
    assert said[0] is None and said[-1] is not None
    assert "all given up" in said[-1].why and not said[-1].still, "games come and go: nobody hangs"


def test_a_run_that_stays_paused_ends_with_the_judges_sentence() -> None:
    dog = Watchdog(stall_s=60, abandoned_in_a_row=100)
    why = "paused: judge failed 81 of the last 200 verdicts, alarm at 25 %; asking again with 4 games in 12 s"
    probing = [
        replace(SNAPSHOT, now_s=10.0 * k, games_finished=k, tokens=k, paused_s=10.0 * k, admission=why)
        for k in range(1, 7)
    ]
    assert [dog.check(s) for s in probing[:-1]] == [None] * 5  # its probes move, and that is no movement
    assert dog.check(probing[-1]) == Finding(f"no end of a pause of 60 s: {why}")


def test_counts_that_fall_are_parts_that_start_anew_and_no_movement() -> None:
    dog = Watchdog(stall_s=60, abandoned_in_a_row=100)
    falls = [
        replace(SNAPSHOT, now_s=10.0 * k, tokens=1000 - k, steps={"attacker": 90 - k, "defender": 1})
        for k in range(1, 8)
    ]
    said = [dog.check(s) for s in falls]
    assert said[:-1] == [None] * 6 and said[-1] is not None and "nothing moved for 60 s" in said[-1].why


def test_a_learner_that_went_back_moves_again_with_its_next_step() -> None:
    dog = Watchdog(stall_s=60, abandoned_in_a_row=100)
    steps = [99, 50, 51, 52, 53]
    seen = [replace(SNAPSHOT, now_s=40.0 * (k + 1), steps={"attacker": n, "defender": 1}) for k, n in enumerate(steps)]
    assert [dog.check(s) for s in seen] == [None] * 5
