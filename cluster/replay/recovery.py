"""Recovery: the replay buffer's state, rebuilt from its segments and its journal.

Rows come from the segments; when their game entered its tables, and what became of them, from the journal, in its order. A
game counts as finished only if all the rows that its `finish` event names are there: after a power cut the journal may
have reached the disk before the rows, and then the game is dealt again. Rows of a game without its `finish` event are kept
aside: when the game is finished again, they are its rows, and nothing lies on disk twice. It writes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.replay.alarm import Alarm
from cluster.replay.facts import Loss, read_facts
from cluster.replay.journal import Event
from cluster.replay.segments import Place, StoredBatch
from cluster.replay.table import Row, Table
from cluster.replay.tally import Tally
from cluster.replay.turns import Roster
from protocol.roles import PLAYERS, Player

Rows = dict[Player, list[Row[Place]]]


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the actor goes on from.

    Attributes:
        finished, abandoned: games that are over; the latter with their reasons.
        set_aside: stored rows by game, of games that are not over.
        missing: events about games or rows that no segment holds: 0 unless a disk lost something that it had confirmed.
    """

    finished: tuple[int, ...]
    abandoned: dict[int, str]
    set_aside: dict[int, Rows]
    missing: int


def recover_state(
    stored: Mapping[Player, Sequence[StoredBatch]],
    events: Sequence[Event],
    tables: Mapping[Player, Table[Place]],
    tally: Tally,
    alarm: Alarm,
    roster: Roster,
    losses: Mapping[Player, Loss],
) -> Recovered:
    """Fills empty tables and an empty tally; of alarms it restores only how often and how long the run was paused."""
    games: dict[int, Rows] = {}
    for player in PLAYERS:
        seen: set[str] = set()
        for found in stored[player]:
            for facts, place in zip(read_facts(found.batch, losses[player]), found.places, strict=True):
                if facts.row_id in seen:
                    tables[player].duplicates += 1
                    continue
                seen.add(facts.row_id)
                rows = games.setdefault(facts.game_id, {p: [] for p in PLAYERS})
                rows[player].append(Row(facts.row_id, facts.version, place, facts.unlearnable))
                tally.add_row(player, facts.reward)
    finished: set[int] = set()
    abandoned: dict[int, str] = {}
    missing = 0
    for event in events:
        match event["e"]:
            case "finish":
                game_id = event["id"]
                rows = games.get(game_id, {p: [] for p in PLAYERS})
                if game_id in finished:
                    continue
                if any(len(rows[p]) != event["rows"].get(p, 0) for p in PLAYERS):
                    missing += 1
                    continue
                standing = roster.standing(tables)
                spoilt = event.get("spoilt", False)  # older runs took such games for games of a step
                for player in PLAYERS:
                    tables[player].append(game_id, rows[player], roster.refusal(player, standing), spoilt)
                finished.add(game_id)
                tally.add_game(event)
            case "abandon":
                abandoned[event["id"]] = event["why"]
            case "evict" if "games" in event:
                missing += tables[event["p"]].drop(event["games"], event["why"])
            case "evict":  # older runs evicted row by row
                missing += tables[event["p"]].evict(event["ids"], event["why"])
            case "lease":
                missing += tables[event["p"]].restore_lease(event["step"], event["version"], event["games"])
            case "seen":
                tables[event["p"]].ask(event.get("step", 0), event["version"])  # older runs did not write the step
            case "ack":
                tables[event["p"]].acknowledge(event["step"])
            case "rewind":
                tables[event["p"]].rewind(event["step"])
            case "finished":
                tables[event["p"]].finish()
            case "alarm":
                alarm.raised += 1
            case "calm":
                alarm.paused_s += event["s"]
            case unknown:
                raise ValueError(f"journal event {unknown!r} is unknown to this version of AdvGame")
    set_aside = {g: rows for g, rows in games.items() if g not in finished}
    return Recovered(tuple(sorted(finished)), abandoned, set_aside, missing)
