"""What a person sees: two players side by side within a terminal's bounds, a plain line elsewhere, and names as they are."""

import time
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from cluster.measure.points import HeldoutPoint
from cluster.observe import progress as progress_module
from cluster.observe.line import line
from cluster.observe.picture import HEIGHT, WIDTH, picture
from cluster.observe.progress import Progress
from cluster.observe.view import Outlook, PlayerView, RunStats, RunView, view_of
from cluster.replay.rules.admission import Admission
from cluster.replay.stats import RowCounts
from tests.unit.cluster.plan.plans import parse_plan
from tests.unit.cluster.run.moments import HITS, REPLAY

NAME = ":llama: [red]x[/red]"


def point(step: int, attack: float | None, refusal: float, occasion: str = "", mixed: bool = False) -> HeldoutPoint:
    versions = {"attacker": step, "defender": step + 1}
    return HeldoutPoint(
        occasion or f"step-{step}", step, versions, mixed, attack, refusal, 0.9, 24, 24, 0, time_s=1.0, seconds=2.0
    )


def player(**changes: object) -> PlayerView:
    rows = RowCounts(appended=200, learned=100, leased=20, free=30, held=50, evicted={"tie": 30, "stale": 4, "old": 7})
    view = PlayerView(True, 12, 9, 0.693, 0.55, 0.41, 70, rows, 0.15, 1.25, 0.065, 0.84, 2, 0.71)
    return replace(view, **changes)  # type: ignore[arg-type]


EMPTY = view_of(parse_plan({}), RunStats())
RICH = replace(
    view_of(parse_plan({}), RunStats(REPLAY, pool=HITS)),
    run=NAME,
    steps=50,
    limit=16,
    in_flight=12,
    finished=210,
    abandoned=3,
    turn="defender",
    valid_attacks=0.85,
    faithful_attacks=0.9,
    staleness=2,
    players={"attacker": player(), "defender": player(step=14, version=11, reward=-0.25)},
    heldout=(
        point(0, 0.6, 0.3, "start"),
        point(5, None, 0.25),
        point(10, 0.2, 0.1, mixed=True),
        point(50, 0.9, 0.1, "end_trained_attacker"),
    ),
    bottleneck="learners wait (attacker 62 %, defender 40 %): judge pool busy 98 %",
    eta_s=240.0,
    judge_busy=0.98,
)


def draw(view: RunView) -> list[str]:
    console = Console(record=True, width=WIDTH, file=StringIO())
    console.print(picture(view))
    return [text.rstrip() for text in console.export_text().splitlines()]


def test_a_rich_moment_shows_everything_side_by_side() -> None:
    drawn = draw(RICH)
    assert drawn[0] == f"AdvGame {NAME}  about 4 min left"
    text = [" ".join(row.split()) for row in drawn]
    for row in (
        "attacker defender (its turn)",
        "step 12/50 14/50",
        "version v9 v11",
        "reward 0.41 -0.25",
        "staleness mean 0.8, max 2 (bound 4) mean 0.8, max 2 (bound 4)",
        "buffer 70 games held, 30 rows wait 70 games held, 30 rows wait",
        "rows 120 of 200 learned 120 of 200 learned",
        "evicted 30 tie, 7 old, 4 stale 30 tie, 7 old, 4 stale",
        "ties 15 % 15 %",
        "held-out attack success ▅·▂ 20 % (v11+)",
        "over-refusal ▃▃▁ 10 % (v11+)",
        "judge 80 verdicts, 10 % failed, 25 % flips, busy 98 %",
        "games 12 of 16 playing, 210 done, 3 abandoned; attacks 85 % valid, 90 % of them faithful",
        "bottleneck learners wait (attacker 62 %, defender 40 %): judge pool busy 98 %",
    ):
        assert row in text, (row, text)


@pytest.mark.parametrize("view", [RICH, EMPTY], ids=["rich", "empty"])
def test_a_picture_fits_the_terminal(view: RunView) -> None:
    long = {f"reason_{k}": 1000 + k for k in range(20)}
    players = {p: replace(v, rows=replace(v.rows, evicted=long)) for p, v in view.players.items()}
    points = tuple(point(k, 0.5, 0.5) for k in range(200))
    for seen in (
        view,
        replace(view, run="n" * 150, why="w" * 300, bottleneck="b" * 300, players=players, heldout=points),
    ):
        drawn = draw(seen)
        assert len(drawn) <= HEIGHT - 2, "two waits have their lines below it"
        assert max(map(len, drawn)) <= WIDTH


def test_an_empty_moment_measures_nothing() -> None:
    text = [" ".join(row.split()) for row in draw(EMPTY)]
    assert "held-out attack success not measured yet" in text and "over-refusal not measured yet" in text
    assert "judge 0 verdicts, - failed, - flips" in text and "bottleneck not known yet" in text
    assert "reward - -" in text and "staleness - (bound 4) - (bound 4)" in text and text[0] == "AdvGame a"
    frozen = view_of(parse_plan({"learners": {"attacker": {"train": False}}}), RunStats())
    assert "step frozen 0/1000" in [" ".join(row.split()) for row in draw(frozen)]


def test_the_line_tells_the_same() -> None:
    said = line(RICH)
    for fact in (
        "attacker step 12/50 v9 reward 0.41 staleness mean 0.8, max 2 loss 0.693",
        "defender (its turn) step 14/50 v11 reward -0.25",
        "held-out v1 -> v11+: attack success 60 % -> 20 %, over-refusal 30 % -> 10 %",
        "games 210 done 12 of 16 playing, 3 abandoned; attacks 85 % valid, 90 % of them faithful",
        "ties attacker 15 %, defender 15 %",
        "judge 80 verdicts, 10 % failed, 25 % flips, busy 98 %",
        "attacker holds 70 games, rows 120 of 200 learned, evicted 30 tie, 7 old, 4 stale",
        "staleness 2 of 4; learners wait (attacker 62 %, defender 40 %): judge pool busy 98 %; about 4 min left",
    ):
        assert fact in said, (fact, said)
    assert "held-out" not in line(EMPTY)
    assert "held-out v1: attack success 60 %, over-refusal 30 %;" in line(replace(RICH, heldout=RICH.heldout[:1]))
    assert "\n" not in said


def test_elsewhere_a_moment_is_one_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    out = StringIO()
    with Progress(Console(file=out, highlight=False, soft_wrap=True)) as progress:
        for second in range(25):
            now = 1000.0 + second
            progress.show(RICH)
        progress.say(f"run {NAME} [0 s]")
    said = out.getvalue().splitlines()
    assert len(said) == 4 and [text[:11] for text in said[:3]] == ["[   0.0 s] ", "[  10.0 s] ", "[  20.0 s] "]
    assert said[3] == f"[  24.0 s] run {NAME} [0 s]", "neither markup nor emoji"


def terminal() -> Console:
    return Console(file=StringIO(), force_terminal=True, width=WIDTH, height=HEIGHT, _environ={"TERM": "xterm"})


def test_on_a_terminal_a_picture_is_live_with_the_waits_below_it() -> None:
    console = terminal()
    with Progress(console) as progress:
        with progress.wait("the engines", "about a minute") as note, progress.wait("the first step"):
            note("3 of 4 engines serve")
            progress.show(RICH)
            shown = Console(record=True, width=WIDTH, file=StringIO())
            shown.print(progress._draw())
        text = shown.export_text()
        assert "learners wait (attacker 62 %" in text
        assert "waiting for the engines: 3 of 4 engines serve; 0 s so far (about a minute)" in text
        assert text.index("bottleneck") < text.index("the engines") < text.index("waiting for the first step: 0 s")
        assert len(text.splitlines()) <= HEIGHT
        gone = Console(record=True, width=WIDTH, file=StringIO())
        gone.print(progress._draw())
    assert "waiting" not in gone.export_text()


def test_a_wait_that_fails_is_over_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "TOLD_S", 0.0)
    with Progress(terminal()) as progress:
        with pytest.raises(ValueError), progress.wait("the engines"):
            raise ValueError
        assert progress._pending == {}
        with progress.wait("Ray"):
            pass
        file = progress.console.file
    assert isinstance(file, StringIO)
    assert "waited 0 s for Ray" in file.getvalue() and "for the engines" not in file.getvalue()


def test_a_paused_run_gives_its_reason_last() -> None:
    why = "paused: judge failed on [bold]9[/bold] of 10"
    paused = replace(REPLAY, admission=Admission(0, why), alarm=replace(REPLAY.alarm, up_s=9.0))
    view = view_of(parse_plan({}), RunStats(paused), outlook=Outlook("games wait", 1.5))
    assert line(view).endswith(f"games wait; about 2 s left; {why}")
    assert draw(view)[-1].endswith(why)
