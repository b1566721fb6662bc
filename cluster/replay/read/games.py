"""`games.md`: some games of a run to read, from its seeds to what each side wrote and what the judge gave.

The run's own file, and only where its recipe asks for it (`observe.games`), because it holds attacks and harmful answers as they
are. Texts are indented, so that a viewer of Markdown shows them and acts on nothing in them.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.console import escape
from cluster.replay.read.reader import StoredRow, StoredRun, read_replay
from cluster.rundir import RunDir
from protocol.files import write_file
from protocol.types import Seed

COLUMNS = 110  # of a text's lines


@dataclass(slots=True)
class _Game:
    """A game's rows: the attacker's, and the defender's by the place of the attack."""

    attacks: StoredRow | None = None
    responses: dict[int, StoredRow] = field(default_factory=dict)


def write_games(run_dir: RunDir, seeds: Iterable[Seed], n: int) -> int:
    """Writes up to `n` games, half of them the run's first and half its last. Gives their number; none: no file is written.

    Raises:
        UserError: the run's replay folder cannot be read.
    """
    stored = read_replay(run_dir.path)
    games = collect_games(stored)
    chosen = choose(sorted(games), n)
    if chosen:
        texts = {seed.id: seed.text for seed in seeds}
        parts = [describe(game_id, games[game_id], texts) for game_id in chosen]
        head = (
            f"# {len(chosen)} of {len(games)} games of {run_dir.path.name}\n\n"
            "The first ones and the last ones. What the models wrote stands here as it is, attacks and harmful answers too.\n"
        )
        write_file(run_dir.games, "\n".join([head, *parts]))
    return len(chosen)


def collect_games(stored: StoredRun) -> dict[int, _Game]:
    """The finished games by their ids."""
    games: dict[int, _Game] = {}
    for row in stored.rows():
        if row.fate.status == "unfinished":
            continue
        game = games.setdefault(row.game_id, _Game())
        if row.player == "attacker":
            game.attacks = row
        else:
            game.responses[int(row.row_id.rpartition("/")[2])] = row
    return {game_id: game for game_id, game in games.items() if game.attacks is not None}


def choose(games: Sequence[int], n: int) -> list[int]:
    """The first and the last ones, `n` in all; the first ones are more by one where `n` is odd."""
    if len(games) <= n:
        return list(games)
    last = n // 2
    return [*games[: n - last], *games[len(games) - last :]]


def describe(game_id: int, game: _Game, seeds: Mapping[str, str]) -> str:
    """One game as Markdown."""
    assert game.attacks is not None
    (attacks,) = _read(game.attacks)
    lines = [f"## Game {game_id}: {attacks['category']}, Attacker v{attacks['version']}", "", "Seed:", ""]
    lines += [*_quote(seeds.get(attacks["seed_id"], "(not among the run's seeds)")), ""]
    for place, attack in enumerate(attacks["items"]):
        lines += [f"### Attack {place + 1}: {_ended(attack)}", "", *_quote(attack["text"]), ""]
        for row in _read(game.responses.get(place)):
            for k, response in enumerate(row["items"]):
                lines += [f"Response {k + 1} of Defender v{response['first_version']}: {_ended(response)}", ""]
                lines += [*_quote(response["text"]), ""]
    return "\n".join(lines)


def _read(row: StoredRow | None) -> list[dict[str, Any]]:
    """A row's columns; nothing where there is no row."""
    if row is None:
        return []
    wanted = ["category", "version", "seed_id", "items"]
    found: list[dict[str, Any]] = row.batch.slice(row.index, 1).select(wanted).to_pylist()
    return found


def _ended(item: Mapping[str, Any]) -> str:
    reward = item["reward"]
    return f"{item['state']}, reward {reward:.1f}" if reward is not None else f"{item['state']}, no reward"


def _quote(text: str) -> list[str]:
    """A text in indented lines."""
    lines = [part for line in text.splitlines() for part in (textwrap.wrap(escape(line), COLUMNS) or [""])]
    return [f"    {line}".rstrip() for line in lines or ["(nothing)"]]
