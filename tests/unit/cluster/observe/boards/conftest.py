"""What Prometheus answers to every query of the boards, and to every mutant of it, in every world of seeded series; asked once."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.observe.boards.boards import BOARDS, STARTS
from tests.promtool import Answer, BadQuery, evaluate
from tests.seeds import PLAYER, RUN, make_worlds

QUERIES = {  # by what a failing test is called
    f"{board.uid}/{panel.title}/{query.legend}": query
    for board in BOARDS
    for panel in board.panels
    for query in panel.queries
} | {"annotation": STARTS}
BUILT_IN = {"$__rate_interval": "2m", "$__range": "10m"}
SELECTOR = re.compile(r"(\bray_\w+)\{([^}]*)\}")
JOINED = ("player", "pool")
MATCHER = re.compile(r'\w+(?:=~|!=|!~|=)"[^"]*"')


def fill(expr: str, player: str = PLAYER, run: str = RUN) -> str:
    """The expression as Grafana sends it."""
    for name, value in (BUILT_IN | {"$run": run, "$player": player}).items():
        expr = expr.replace(name, value)
    return expr


@dataclass(frozen=True)
class Mutant:
    """An expression (`expr`) without one of its label matchers, and what it is compared with (`whole`)."""

    without: str
    whole: str
    expr: str


def mutate(expr: str) -> list[Mutant]:
    """All of them, one at each place where a matcher stands."""
    places = _places(expr)
    return [Mutant(_name(expr, place), expr, _cut(expr, [place])) for place in places]


def mutate_joined(expr: str) -> list[Mutant]:
    """As `mutate`, of the labels that series are joined by: there the matcher on one side does what the one on the other side does.

    So each is looked at where the others of the same label are gone already.
    """
    found = []
    for place in _places(expr):
        same = [other for other in _places(expr) if expr[slice(*other)] == expr[slice(*place)]]
        if expr[slice(*place)].startswith(JOINED) and len(same) > 1:
            others = [other for other in same if other != place]
            found.append(Mutant(_name(expr, place), _cut(expr, others), _cut(expr, same)))
    return found


def _places(expr: str) -> list[tuple[int, int]]:
    return [
        (selector.start(2) + matcher.start(), selector.start(2) + matcher.end())
        for selector in SELECTOR.finditer(expr)
        for matcher in MATCHER.finditer(selector[2])
    ]


def _name(expr: str, place: tuple[int, int]) -> str:
    return f"{place[0]}: {expr[slice(*place)]}"


def _cut(expr: str, places: list[tuple[int, int]]) -> str:
    for begin, end in sorted(places, reverse=True):
        rest = expr[end:].removeprefix(",")
        expr = expr[:begin] + rest
    return expr.replace(",}", "}")


Answers = dict[str, dict[str, Answer | BadQuery]]  # by world, then by expression


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """By world and filled expression; mutants are in it, too, and queries with all players chosen."""
    folder: Path = tmp_path_factory.mktemp("promtool")
    exprs = {fill(query.expr) for query in QUERIES.values()}
    mutants = {
        m for expr in exprs for mutant in (*mutate(expr), *mutate_joined(expr)) for m in (mutant.whole, mutant.expr)
    }
    everybody = {fill(query.expr, player="attacker|defender") for query in QUERIES.values()}
    worlds = make_worlds(exprs)
    found = evaluate(worlds.values(), exprs | mutants | everybody, folder)
    return dict(zip(worlds, found, strict=True))
