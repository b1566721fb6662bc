"""The Judge Card as a page, and where both of its files are written. What it says is `card`'s."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.measure.agreement import Row
from cluster.measure.card import Card
from cluster.measure.intervals import Interval
from cluster.measure.rewording import Changes
from protocol.files import write_file, write_json

MARKDOWN, JSON = "judge_card.md", "judge_card.json"
LEFT_OUT = "-"  # what could not be measured; never 0


def write_card(folder: Path, card: Card) -> None:
    """Writes the two files, each whole.

    Raises:
        OSError: the folder cannot be written.
    """
    write_json(folder / JSON, card.as_dict())
    write_file(folder / MARKDOWN, render(card))


def render(card: Card) -> str:
    """The page, as Markdown."""
    return "\n".join([*_head(card), *_errors(card), *_stability(card), *_losses(card), *_use(card)]) + "\n"


def _head(card: Card) -> Iterator[str]:
    yield f"# Judge Card: {_code(card.judge)}"
    yield ""
    yield f"How far the verdicts of this judge can be believed, measured on labels, with 95 % intervals; {LEFT_OUT}: unknown."
    yield ""
    yield from _table(("", ""), [(name, value) for name, value in _facts(card) if value])
    if card.kind == "match":
        yield ""
        yield "It matches phrases and counts words, as string-match figures in papers do. It is easy to fool."


def _facts(card: Card) -> Iterator[tuple[str, str]]:
    yield "kind", _code(f"judge.kind: {card.kind}")
    yield "model", _code(card.model) if card.model else ""
    yield "asked", ", ".join(f"{_code(f'{name} {value}')}" for name, value in card.asked.items())
    yield "rubrics", "<br>".join(map(_code, card.rubrics))
    yield "packages", ", ".join(f"{name} {version}" for name, version in card.packages.items())
    yield "labels", f"{_code(card.labels)}, {card.judged_labels} of {card.known_labels}"
    yield "made", card.made


def _errors(card: Card) -> Iterator[str]:
    yield from ("", "## Against the labels", "")
    heads = ("criterion", "form", "labels", "judged", "sensitivity", "specificity", "accuracy", "kappa")
    yield from _table(heads, [_error_line(row) for row in card.rows])
    yield ""
    yield (
        "Sensitivity: the share of the labels 5 or more (faithfulness: true) that the judge puts there, too; specificity: the same "
        "of the labels below 5 (false). Pairs have neither. A label without an answer is in neither."
    )


def _error_line(row: Row) -> Sequence[str]:
    named = (row.criterion, row.form, str(row.n), str(row.judged))
    kappa = LEFT_OUT if row.kappa is None else f"{row.kappa.value:.2f} ({row.kappa.low:.2f} to {row.kappa.high:.2f})"
    return (*named, say_share(row.sensitivity), say_share(row.specificity), say_share(row.accuracy), kappa)


def _stability(card: Card) -> Iterator[str]:
    overall = card.rows[-1]
    yield from ("", "## When only the question's form changes", "")
    yield f"Order of the two responses swapped: {say_share(overall.flip_rate)} of the pairs get another winner."
    yield ""
    if card.unchanged_because is not None:
        yield f"Rubric reworded: {card.unchanged_because}"
    if card.changes:
        heads = ("rubric", "compared", "answers that change", "answers lost")
        yield from ("", *_table(heads, [_change_line(changes) for changes in card.changes]))
        yield ""
        yield (
            'A rewording says the same in other words. What changes beyond "the same words again" is due to the words; that '
            "line is the judge's own chance."
        )


def _change_line(changes: Changes) -> Sequence[str]:
    return changes.name, str(changes.compared), say_share(changes.changed), str(changes.lost)


def _losses(card: Card) -> Iterator[str]:
    overall = card.rows[-1]
    yield from ("", "## Verdicts that were none", "")
    unreadable, failed = say_share(overall.parse_failure_rate), say_share(overall.failure_rate)
    yield f"Of {card.verdicts} verdicts {unreadable} could not be read, {failed} failed for any reason; none became a number."
    yield from (f"- {reason}: {n}" for reason, n in card.failures.items())


def _use(card: Card) -> Iterator[str]:
    yield from ("", "## Tokens", "")
    if card.tokens is None:
        yield "None: this judge writes nothing."
        return
    cost = "" if card.tokens.cost is None else f"; cost {card.tokens.cost:g} in the currency of the recipe's prices"
    yield f"{card.tokens.read} read, {card.tokens.written} written, in all passes over the labels{cost}."


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    yield from (f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """As code; a bar or a backtick in a name would break the table."""
    return f"`{text.replace('`', chr(39)).replace('|', '/')}`"


def say_share(share: Interval | None) -> str:
    """In percent, with its interval."""
    if share is None:
        return LEFT_OUT
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"
