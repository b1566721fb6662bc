"""The tables that a person reads at the end of a run, from its `summary.json`: what each player did, and what came of it.

Pure. Names and reasons are text, never markup.
"""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from cluster.measure.intervals import Interval, newcombe, wilson
from cluster.observe.words import duration
from protocol.roles import PLAYERS

MEASURES = {  # by the names of `Measurement`'s attributes: label, and what counts its responses
    "attack_success": ("attack success", "n_harmful"),
    "over_refusal": ("over-refusal", "n_benign"),
    "benign_compliance": ("benign compliance", "n_benign"),
    "deflection": ("deflection", "n_harmful"),
}
LOST = ("unwrapped", "unjudged", "unanswered")
CAPTION = (  # in lines as long as the table: the console breaks none
    "[low, high]: 95 % intervals; Wilson's of a share, Newcombe's of the change. The attacks\n"
    "before and after are the same, but count as two independent samples.\n"
    "Judged: responses to harmful + benign asks"
)

Measured = Mapping[str, Any]  # a `Measurement` as `summary.json` holds it


def run_table(summary: Mapping[str, Any]) -> Table:
    """What each player did."""
    table = Table(title=Text(_title(summary)))
    for column in ("player", "steps", "versions", "rows", "learned", "held", "evicted"):
        table.add_column(column, justify="left" if column in ("player", "evicted") else "right")
    for p in PLAYERS:
        rows = summary["rows"].get(p, {})
        evicted = ", ".join(f"{n} {reason}" for reason, n in sorted(rows.get("evicted", {}).items())) or "none"
        table.add_row(
            p,
            str(summary["steps"][p]) if p in summary["trained"] else "frozen",
            str(summary["versions_pushed"][p]),
            *(str(rows.get(k, 0)) for k in ("appended", "learned", "held")),
            Text(evicted),
        )
    return table


def _title(summary: Mapping[str, Any]) -> str:
    wall_s, total_s = summary["wall_s"], summary["wall_s_total"]
    words = f" ({duration(wall_s)})" if wall_s >= 60 else ""
    resumed = f", {duration(total_s)} with its earlier parts" if total_s > wall_s else ""
    return f"Run {summary['run']}: {summary['status']} after {wall_s:.0f} s{words}{resumed}"


def heldout_table(summary: Mapping[str, Any]) -> Table:
    """The Defender on held-out seeds: before -> after with the change, and what the trained attacker gets out of it."""
    heldout = summary["heldout"]
    samples = summary.get("heldout_samples", 1)  # attacks on one seed are no independent trials: they count as one
    before, after, trained = (heldout.get(key) for key in ("start", "end", "end_trained_attacker"))
    table = Table(title="The Defender on held-out seeds", caption=Text(CAPTION))
    for column in ("", "before", "-> after", "change", "trained attacker"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, (label, counted_by) in MEASURES.items():
        shares = [Text(say(share_of(m, name, counted_by, samples))) for m in (before, after, trained)]
        change = Text(say(change_of(before, after, name, counted_by, samples), sign="+"))
        table.add_row(label, *shares[:2], change, shares[2])
    table.add_section()
    table.add_row("judged", _count(before), _count(after), "", _count(trained))
    table.add_row("lost", _lost(before), _lost(after), "", _lost(trained))
    return table


def _hits(measured: Measured | None, name: str, counted_by: str, samples: int) -> tuple[float, float] | None:
    """(hits, trials) of a share; None where it was not measured."""
    if measured is None or measured.get(name) is None or not measured[counted_by]:
        return None
    n = measured[counted_by]
    return round(measured[name] * n) / samples, n / samples


def share_of(measured: Measured | None, name: str, counted_by: str, samples: int) -> Interval | None:
    """A share with its interval; None where it was not measured.

    Args:
        name, counted_by: as in `MEASURES`.
        samples: attacks on each seed, which together count as one trial.
    """
    hits = _hits(measured, name, counted_by, samples)
    return None if hits is None else wilson(*hits)


def change_of(
    before: Measured | None, after: Measured | None, name: str, counted_by: str, samples: int
) -> Interval | None:
    """The change of a share, after minus before. Arguments as `share_of`."""
    first, last = (_hits(m, name, counted_by, samples) for m in (before, after))
    return None if first is None or last is None else newcombe(*first, *last)


def say(interval: Interval | None, sign: str = "") -> str:
    """In per cent with its bounds; "-" for what was not measured."""
    if interval is None:
        return "-"
    value, low, high = (f"{100 * x:{sign}.0f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} % [{low}, {high}]"


def _count(measured: Measured | None) -> str:
    return "-" if measured is None else f"{measured['n_harmful']} + {measured['n_benign']}"


def _lost(measured: Measured | None) -> str:
    return "-" if measured is None else str(sum(measured[key] for key in LOST))
