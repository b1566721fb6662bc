"""`python -m cluster replay RUN`: what a run's replay folder holds, as tables for people, and as a file.

It only reads (`reader`), so the run may be going on. Texts are shown only on request: attacks and harmful answers stay out of
terminals and their logs. Texts that are shown cannot control the terminal.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.console import escape, make_console
from cluster.inputs.home import expand_home
from cluster.replay.read.choose import Filter
from cluster.replay.read.export import check_target, export_rows
from cluster.replay.read.reader import Fate, Status, StoredRow, StoredRun, read_replay
from protocol.roles import CATEGORIES, PLAYERS

LISTED = 20  # rows, where no limit is given


def show_replay(
    run: Path,
    only: Filter,
    limit: int | None,
    text: bool,
    export: Path | None,
    force: bool,
    console: Console | None = None,
) -> None:
    """Prints the tables and, if asked to, writes the rows.

    Args:
        only: which rows are counted, listed and exported.
        limit: rows listed or exported, at most.
        text: show and export the players' texts.

    Raises:
        UserError: the run cannot be read or the target cannot be written; then nothing is written.
    """
    if export is not None:
        export = expand_home(export, "--export")
        check_target(export, force)
    stored = read_replay(run)
    rows = [row for row in stored.rows() if only(row)]
    console = make_console() if console is None else console
    console.print(players_table(run.name, stored, rows))
    console.print(categories_table(rows))
    some = list(islice(rows, limit))
    if export is not None:
        export_rows(some, export, text)
        console.print(f"{export}: {len(some)} rows{'' if text else ', without texts (--text)'}", markup=False)
    elif text or limit is not None or only != Filter():
        some = some if limit is not None else some[:LISTED]
        console.print(rows_table(some, len(rows), text))


def players_table(name: str, stored: StoredRun, rows: Sequence[StoredRow]) -> Table:
    """Each player's rows and what became of them. Segments, bytes and lost rows are the whole folder's, whatever the filter."""
    table = Table(title=f"Replay of {name}, staleness at most {stored.max_staleness}")
    for column in (
        "player",
        "appended",
        "learned",
        "leased",
        "waiting",
        "evicted",
        "staleness",
        "lost",
        "segments",
        "MiB",
    ):
        table.add_column(column, justify="left" if column in ("player", "evicted") else "right")
    for player in PLAYERS:
        own = [row.fate for row in rows if row.player == player]
        status: Counter[Status] = Counter(fate.status for fate in own)
        why = Counter(fate.why for fate in own if fate.why is not None)
        stale = [fate.staleness for fate in own if fate.staleness is not None]
        unfinished = f" (+{status['unfinished']} of open games)" if status["unfinished"] else ""
        counted = stored.tables[player]
        table.add_row(
            player,
            f"{len(own) - status['unfinished']}{unfinished}",
            *(str(status[s]) for s in ("learned", "leased", "waiting")),
            ", ".join(f"{n} {reason}" for reason, n in sorted(why.items())) or "none",
            f"mean {fmean(stale):.2f}, max {max(stale)}" if stale else "-",
            f"{counted.lost}{' or more' if counted.lost_at_least else ''}",
            str(stored.segments[player]),
            f"{stored.nbytes[player] / 2**20:.1f}",
        )
    return table


def categories_table(rows: Sequence[StoredRow]) -> Table:
    """The rows by category, and how their items ended."""
    table = Table(title="By category")
    for column in ("player", "category", "rows", "learned", "items by state"):
        table.add_column(column, justify="right" if column in ("rows", "learned") else "left")
    for player in PLAYERS:
        for category in CATEGORIES:
            own = [row for row in rows if (row.player, row.category) == (player, category)]
            states = Counter(state for row in own for state in row.states)
            learned = sum(row.fate.status == "learned" for row in own)
            ended = ", ".join(f"{n} {state}" for state, n in states.most_common()) or "none"
            table.add_row(player, category, str(len(own)), str(learned), ended)
    return table


def rows_table(rows: Sequence[StoredRow], found: int, text: bool) -> Table:
    """The rows one by one; with `text` each item's text below it."""
    table = Table(title=f"{len(rows)} of {found} rows", show_lines=text)
    for column in ("row", "category", "version", "opponent", "became", "items"):
        table.add_column(column, justify="right" if column in ("version", "opponent") else "left", overflow="fold")
    for row in rows:
        (full,) = row.batch.slice(row.index, 1).select(["version", "opponent_version", "items"]).to_pylist()
        items = [_describe_item(item, text) for item in full["items"]]
        opponent = full["opponent_version"]
        table.add_row(
            row.row_id,
            row.category,
            str(full["version"]),
            "-" if opponent is None else str(opponent),
            _describe_fate(row.fate),
            Text("\n" if text else ", ").join(items),
        )
    return table


def _describe_fate(fate: Fate) -> str:
    if fate.step is not None:
        return f"{fate.status}, step {fate.step}, {fate.staleness} stale"
    return fate.status if fate.why is None else f"{fate.status}: {fate.why}"


def _describe_item(item: dict[str, object], text: bool) -> Text:
    reward = item["reward"]
    ended = f"{item['state']} {reward:.1f}" if isinstance(reward, float) else f"{item['state']}"
    return Text(f"{ended}: {escape(str(item['text']))}" if text else ended)
