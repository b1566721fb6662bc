"""What the helpers' queries say, against numbers worked out by hand; Prometheus' own engine answers."""

from pathlib import Path

import pytest

from cluster.observe import promql as q
from protocol import metrics as m
from protocol.metrics import Metric
from tests.promtool import SAMPLES, STEP_S, Answer, BadQuery, Seed, evaluate, needs_promtool

VARIABLES = {"$__rate_interval": "2m", "$__range": "10m", "$run": "r", "$player": "attacker|defender"}


def seed(metric: Metric, start: float = 0, slope: float = 0, end: str = "", **labels: str) -> Seed:
    return Seed(f"ray_{metric.name}{end}", tuple({"run": "r", **labels}.items()), start, slope)


def ask(expr: str, folder: Path, *world: Seed) -> Answer:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    (answers,) = evaluate([world], [expr], folder)
    answer = answers[expr]
    assert not isinstance(answer, BadQuery), answer
    return answer


def batch(player: str) -> Seed:
    """What every run has of a player, from its start."""
    return seed(m.BATCH_GAMES, 8, player=player)


def test_a_selector_names_run_and_player() -> None:
    assert q.select(m.LOSS) == 'ray_advgame_loss{run="$run",player=~"$player"}'
    assert q.select(m.ASKS, outcome="!taken") == (
        'ray_advgame_asks_total{run="$run",pool=~"$player|judge",outcome!="taken"}'
    )
    assert q.select(m.GAME_SECONDS, "bucket") == 'ray_advgame_game_seconds_bucket{run="$run"}'


@pytest.mark.parametrize(
    ("metric", "end", "where", "told"),
    [
        (m.LOSS, "", {"phase": "x"}, "not 'phase'"),
        (m.VERDICTS, "", {"outcome": "faild"}, "not 'faild'"),
        (m.GAME_SECONDS, "", {}, "histogram"),
        (m.LOSS, "sum", {}, "gauge"),
    ],
)
def test_a_selector_that_can_find_nothing_is_refused(
    metric: Metric, end: str, where: dict[str, str], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        q.select(metric, end, **where)


@needs_promtool
def test_a_run_whose_name_is_a_pattern_gets_no_other_runs_series(tmp_path: Path) -> None:
    world = [Seed(f"ray_{m.LOSS.name}", (("run", run), ("player", "attacker")), 1) for run in ("qwen2.5", "qwen2x5")]
    assert ask(q.gauge(m.LOSS, "max", ("run",)).replace("$run", "qwen2.5"), tmp_path, *world) == {
        '{run="qwen2.5"}': 1.0
    }


@needs_promtool
def test_rates_add_up_over_processes(tmp_path: Path) -> None:
    world = [seed(m.GENERATED_TOKENS, 0, 20, player="attacker", WorkerId=w) for w in "ab"]  # 2 a second each
    assert ask(q.rate(m.GENERATED_TOKENS, ("player",)), tmp_path, *world) == {'{player="attacker"}': 4.0}
    assert ask(q.per_minute(m.GENERATED_TOKENS, ("player",)), tmp_path, *world) == {'{player="attacker"}': 240.0}


@needs_promtool
def test_busy_seconds_are_a_share_of_the_workers_time(tmp_path: Path) -> None:
    world = [seed(m.ENGINE_BUSY, 0, s, player="attacker", WorkerId=w) for w, s in (("a", 10), ("b", 5))]
    assert ask(q.rate(m.ENGINE_BUSY, ("player",), how="avg"), tmp_path, *world) == {'{player="attacker"}': 0.75}


@needs_promtool
def test_zero_has_the_labels_of_the_players_that_have_counted_nothing(tmp_path: Path) -> None:
    world = [batch("attacker"), batch("defender"), seed(m.LEARNED_TOKENS, 0, 10, player="defender")]
    assert ask(q.rate(m.LEARNED_TOKENS, ("player",)), tmp_path, *world) == {
        '{player="attacker"}': 0.0,
        '{player="defender"}': 1.0,
    }


@needs_promtool
def test_zero_is_shown_only_while_nothing_was_counted(tmp_path: Path) -> None:
    expr = q.count(m.HELDOUT_SKIPPED, ("reason",))
    assert ask(expr, tmp_path, batch("attacker")) == {'{reason="none"}': 0.0}
    assert ask(expr, tmp_path, seed(m.HELDOUT_SKIPPED, 2, reason="late")) == {'{reason="late"}': 2.0}
    assert ask(q.count(m.SINK_DROPPED), tmp_path, batch("attacker")) == {"{}": 0.0}


@needs_promtool
def test_the_first_event_of_a_counter_counts(tmp_path: Path) -> None:
    """Ray shows a counter first when it is 1, which `increase` takes for where it began."""
    once = seed(m.RESTARTS, 1, cause="died", role="judge-0")
    assert ask(q.count(m.RESTARTS, ("cause",)), tmp_path, once) == {'{cause="died"}': 1.0}
    assert ask(f"sum(increase({q.select(m.RESTARTS)}[10m]))", tmp_path, once) == {"{}": 0.0}


@needs_promtool
def test_a_new_process_adds_its_count_or_goes_on_from_the_old_one(tmp_path: Path) -> None:
    evictions = [seed(m.EVICTIONS, n, player="attacker", reason="late", WorkerId=w) for w, n in (("a", 3), ("b", 2))]
    assert list(ask(q.count(m.EVICTIONS, ("reason",)), tmp_path, *evictions).values()) == [5.0]
    journal = [seed(m.GAMES_REDEALT, n, WorkerId=w) for w, n in (("a", 3), ("b", 4))]  # b began with a's 3
    assert ask(q.count(m.GAMES_REDEALT), tmp_path, *journal) == {"{}": 4.0}
    ledger = [seed(m.JUDGE_COST, n, WorkerId=w) for w, n in (("a", 1.5), ("b", 2.5))]
    assert ask(q.count(m.JUDGE_COST), tmp_path, *ledger) == {"{}": 2.5}


@needs_promtool
def test_a_share_is_zero_without_a_part_and_nothing_without_a_whole(tmp_path: Path) -> None:
    agreed, flipped = seed(m.COMPARISONS, 0, 3, outcome="agreed"), seed(m.COMPARISONS, 0, 1, outcome="flipped")
    expr = q.share(m.COMPARISONS, outcome="flipped")
    assert ask(expr, tmp_path, agreed, flipped) == {"{}": 0.25}
    assert ask(expr, tmp_path, agreed) == {"{}": 0.0}
    assert ask(expr, tmp_path) == {}
    assert ask(expr, tmp_path, seed(m.COMPARISONS, 7, 0, outcome="agreed")) == {}, "no event now: no share, and no NaN"


@needs_promtool
def test_shares_of_a_label_add_up_to_one(tmp_path: Path) -> None:
    world = [seed(m.ATTACKS, 0, n, state=s, category="harmful") for s, n in (("ok", 6), ("unfaithful", 2))]
    other = seed(m.ATTACKS, 0, 9, state="malformed", category="benign")
    assert ask(q.shares(m.ATTACKS, "state", category="harmful"), tmp_path, *world, other) == {
        '{state="ok"}': 0.75,
        '{state="unfaithful"}': 0.25,
    }


@needs_promtool
def test_quantiles_and_means_of_a_histogram(tmp_path: Path) -> None:
    """Of ten games a sample, five take up to 1 s and five from 1 to 2.5 s: p50 is 1 s, p75 in the middle of the second bucket."""
    buckets = [
        seed(m.GAME_SECONDS, 0, n, "_bucket", le=le) for le, n in (("0.5", 0), ("1", 5), ("2.5", 10), ("+Inf", 10))
    ]
    total = [seed(m.GAME_SECONDS, 0, 13, "_sum"), seed(m.GAME_SECONDS, 0, 10, "_count")]
    assert ask(q.quantile(0.5, m.GAME_SECONDS), tmp_path, *buckets) == {"{}": 1.0}
    assert ask(q.quantile(0.75, m.GAME_SECONDS), tmp_path, *buckets) == {"{}": 1.75}
    assert ask(q.mean(m.GAME_SECONDS), tmp_path, *total) == {"{}": 1.3}


@needs_promtool
def test_a_phase_is_the_place_of_its_name(tmp_path: Path) -> None:
    world = [
        seed(m.PHASE, float(phase == now), role=role, phase=phase)
        for role, now in (("judge-0", "busy"), ("judge-1", "down"))
        for phase in ("ready", "busy", "down")
    ]
    assert ask(q.decode(m.PHASE, "phase", ("ready", "busy", "down"), ("role",)), tmp_path, *world) == {
        '{role="judge-0"}': 1.0,
        '{role="judge-1"}': 2.0,
    }


def test_seeds_last_longer_than_the_windows() -> None:
    assert STEP_S * (SAMPLES - 1) >= 600
