"""One moment of a run as a picture for the terminal: both players side by side, and below them what they share.

Fits `WIDTH` columns and `HEIGHT` lines. Names and reasons are text, never markup: a run called `:llama:` or `[red]` is shown so.
"""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluster.measure.points import HeldoutPoint
from cluster.observe.eta import describe_left
from cluster.observe.facts import (
    describe_attacks,
    describe_evicted,
    describe_judge,
    describe_playing,
    describe_rows,
    describe_staleness,
    describe_step,
    describe_version,
    heldout_curve,
)
from cluster.observe.sparkline import draw_sparkline
from cluster.observe.view import PlayerView, RunView
from cluster.observe.words import number, percent

WIDTH, HEIGHT = 100, 24
LABEL, GAP, PLAYER = 10, 3, 42  # columns
CURVE = 40  # measurements that a curve shows


def picture(view: RunView) -> Group:
    """The moment for the terminal."""
    return Group(_title(view), _draw_players(view), _draw_shared(view))


def _title(view: RunView) -> Text:
    left = describe_left(view.eta_s)
    title = Text(f"AdvGame {view.run}", style="bold", no_wrap=True, overflow="ellipsis")
    return title.append(f"  {left}", style="not bold") if left else title


def _draw_players(view: RunView) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(width=LABEL)
    for p in view.players:
        name = f"{p} (its turn)" if view.turn == p else p
        table.add_column(Text(name, style="bold"), width=PLAYER, no_wrap=True, overflow="ellipsis")
    for label, cells in _rows(view).items():
        table.add_row(_label(label), *(Text(cell) for cell in cells))
    return table


def _rows(view: RunView) -> dict[str, list[str]]:
    """The table's rows: a label and a cell for each player."""
    players = list(view.players.values())
    return {
        "step": [describe_step(v, view.steps) for v in players],
        "version": [f"v{v.version}" for v in players],
        "reward": [number(v.reward) for v in players],
        "staleness": [f"{describe_staleness(v)} (bound {view.bound})" if v.learns else "-" for v in players],
        "buffer": [_describe_held(v) for v in players],
        "rows": [describe_rows(v) if v.learns else "-" for v in players],
        "evicted": [describe_evicted(v) if v.learns else "-" for v in players],
        "ties": [percent(v.ties) for v in players],
        "loss": [f"{number(v.loss)}, accuracy {number(v.accuracy)}" if v.learns else "-" for v in players],
        "push": [f"{number(v.push_s)} s, paused {number(v.pause_s)} s" if v.learns else "-" for v in players],
        "engines": [f"busy {percent(v.busy)}" for v in players],
    }


def _describe_held(v: PlayerView) -> str:
    return f"{v.held} games held, {v.rows.free} rows wait" if v.learns else "-"


def _draw_shared(view: RunView) -> Table:
    table = Table.grid(padding=(0, GAP))
    table.add_column(width=LABEL)
    table.add_column(width=WIDTH - LABEL - GAP)
    curve = heldout_curve(view)
    table.add_row(_label("held-out"), _draw_curve("attack success", [p.attack_success for p in curve], curve))
    table.add_row("", _draw_curve("over-refusal", [p.over_refusal for p in curve], curve))
    games = f"{describe_playing(view)}, {view.finished} done, {view.abandoned} abandoned; {describe_attacks(view)}"
    for label, text in (("judge", describe_judge(view)), ("games", games)):
        table.add_row(_label(label), Text(text, no_wrap=True, overflow="ellipsis"))
    # Reasons: their ends matter as much as their beginnings, so they may take two lines.
    table.add_row(_label("bottleneck"), Text(view.bottleneck or "not known yet"))
    if view.why:
        table.add_row("", Text(view.why, style="bold red" if view.paused else "dim"))
    return table


def _draw_curve(name: str, shares: list[float | None], curve: list[HeldoutPoint]) -> Text:
    """A measure's course, its newest value, and whose it is."""
    if not curve:
        return Text(f"{name:14} not measured yet")
    return Text(f"{name:14} {draw_sparkline(shares, CURVE)} {percent(shares[-1])} ({describe_version(curve[-1])})")


def _label(text: str) -> Text:
    return Text(text, style="dim")
