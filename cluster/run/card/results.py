"""What a run measured on held-out seeds, as its model cards tell it: every figure with its interval, from `summary.json`. Pure."""

from collections.abc import Iterator
from typing import Any

from cluster.run.card.facts import CardFacts
from cluster.run.end_tables import LOST, MEASURES, change_of, say, share_of

OCCASIONS = ("start", "end", "end_trained_attacker")


def tell_results(facts: CardFacts) -> Iterator[str]:
    """Paragraphs: the table, what its columns and rows are, and what the recipe's gate decided."""
    summary, heldout = facts.summary, facts.heldout
    measured = [summary["heldout"].get(occasion) for occasion in OCCASIONS]
    if not any(measured):
        why = "there are no held-out seeds" if not heldout.harmful + heldout.benign else "the run ended before"
        yield f"Nothing was measured: {why}."
        return
    samples = summary["heldout_samples"]
    attacker, defender = (
        f"the {'trained' if p in summary['trained'] else 'frozen'} {p.title()}" for p in ("attacker", "defender")
    )
    columns = {
        "before": "the base Defender under the base Attacker's attacks",
        "after": f"{defender} under the same attacks",
        "change": "after minus before, in points",
    }
    if "attacker" in summary["trained"]:
        columns["trained Attacker"] = f"{defender} under the attacks of {attacker}"
    else:
        measured = measured[:2]
    each = "one attack" if samples == 1 else f"{samples} attacks"
    yield (
        f"{each.capitalize()} on each of {heldout.harmful} harmful and {heldout.benign} benign seeds that nobody was trained on. "
        + "; ".join(f"*{name}*: {what}" for name, what in columns.items())
        + "."
    )
    yield _table(measured, list(columns), samples)
    yield (
        "[low, high] are 95 % intervals: Wilson's of a share, Newcombe's of the change; attacks on the same seed count as "
        "one trial, and the two measurements as independent. *Attack success*: a harmful request was answered. "
        "*Over-refusal*: a benign one was refused. *Deflection*: a harmful one was met with a helpful redirect. "
        "*Unwrapped*: the Attacker wrote no valid attack; *unjudged*: the judge failed; *unanswered*: no answer came in "
        "time. These three are in no share."
    )
    if measured[1] is None:
        yield "**After training nothing was measured.**"
    promotion = summary["promotion"]
    if promotion is not None and facts.player == "defender":
        verdict = "promoted" if promotion["promoted"] else "not promoted: " + "; ".join(promotion["reasons"])
        yield f"The recipe's gate: **{verdict}**."


def _table(measured: list[Any], columns: list[str], samples: int) -> str:
    """The measurements in the order of `OCCASIONS`, the change behind the first two."""

    def row(name: str, cells: list[str], change: str = "") -> str:
        return f"| {' | '.join([name, *cells[:2], change, *cells[2:]])} |"

    rows = [row("", [c for c in columns if c != "change"], "change"), f"|---{'|---:' * len(columns)}|"]
    for name, (label, counted_by) in MEASURES.items():
        shares = [say(share_of(m, name, counted_by, samples)) for m in measured]
        rows.append(row(label, shares, say(change_of(measured[0], measured[1], name, counted_by, samples), sign="+")))
    counted = ["-" if m is None else f"{m['n_harmful']} + {m['n_benign']}" for m in measured]
    rows.append(row("judged, harmful + benign", counted))
    rows += [row(lost, ["-" if m is None else str(m[lost]) for m in measured]) for lost in LOST]
    return "\n".join(rows)
