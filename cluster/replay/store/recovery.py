"""Recovery: the replay buffer's state, rebuilt from its segments and its journal.

Rows come from the segments. The journal says, in its order, when their game entered the tables and what became of them. A game
counts as finished only if all the rows that its `finish` event names are there: after a power cut the journal may have reached
the disk before the rows, and then the game is dealt again. Rows of a game without its `finish` event are set aside. The second play
may come out otherwise: its record's rows are the game's, and of those set aside only the ones that are equal to them. So an event
names each row and where it lies. The others count as duplicates. A game is finished again only where its earlier event was void, so
its last event counts. It writes nothing.

Lost rows are counted: those that a `finish` event names and that are not there, or those of a torn tail. Rows and event are
written before the fsync that an answer waits for. So lost rows had not been confirmed, unless the disk confirmed an fsync falsely.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.replay.rules.alarm import Alarm
from cluster.replay.rules.events import Event
from cluster.replay.rules.facts import read_facts
from cluster.replay.rules.leases import Row
from cluster.replay.rules.table import Table
from cluster.replay.rules.tally import Tally
from cluster.replay.rules.turns import Roster
from cluster.replay.store.segment_file import Place, StoredBatch, TornTail
from protocol.recipe import Loss
from protocol.roles import PLAYERS, Player

Rows = dict[Player, list[Row[Place]]]
_Found = dict[Player, list[tuple[Row[Place], float | None]]]  # with their mean rewards


@dataclass(frozen=True, slots=True)
class Recovery:
    """What the actor goes on from.

    Attributes:
        finished, abandoned: games that are over; the latter with their reasons.
        set_aside: stored rows by game, of games that are not over.
        missing: leased or evicted games that no segment holds: 0 unless the disk confirmed an fsync falsely.
        lost: `lost` events to write down: what this restart found missing. The tables have counted it.
    """

    finished: tuple[int, ...]
    abandoned: dict[int, str]
    set_aside: dict[int, Rows]
    missing: int
    lost: tuple[Event, ...]


def recover_state(
    stored: Mapping[Player, Sequence[StoredBatch]],
    events: Sequence[Event],
    tables: Mapping[Player, Table[Place]],
    tally: Tally,
    alarm: Alarm,
    roster: Roster,
    losses: Mapping[Player, Loss],
    torn: Mapping[Player, Sequence[TornTail]] | None = None,
) -> Recovery:
    """Fills empty tables and an empty tally. Of alarms it restores only how often and how long the run was paused.

    Args:
        torn: what was cut off the segments this time.
    """
    games = _group_rows(stored, losses)
    finished: set[int] = set()
    abandoned: dict[int, str] = {}
    missing = 0
    short: dict[Player, dict[int, int]] = {p: {} for p in PLAYERS}  # rows that games lack
    noted: dict[Player, set[int]] = {p: set() for p in PLAYERS}  # games whose rows were counted as lost before
    last = {event["id"]: k for k, event in enumerate(events) if event["e"] == "finish" and "at" in event}
    for k, event in enumerate(events):
        match event["e"]:
            case "finish":
                game_id = event["id"]
                if game_id in finished or last.get(game_id, k) != k:
                    continue
                found = games.get(game_id, {p: [] for p in PLAYERS})
                rows_of = {p: _pick(found[p], event) for p in PLAYERS}
                lacking = {p: max(0, event["rows"].get(p, 0) - len(rows_of[p])) for p in PLAYERS}
                if any(lacking.values()):
                    for player in PLAYERS:
                        short[player][game_id] = lacking[player]
                    continue
                standing = roster.standing(tables)
                for player in PLAYERS:
                    refused = roster.refusal(player, standing)
                    tables[player].duplicates += len(found[player]) - len(rows_of[player])
                    rows = [row for row, _ in rows_of[player]]
                    tables[player].append(game_id, rows, event["category"], refused, event["judge_failed"])
                    for _, reward in rows_of[player]:
                        tally.add_row(player, event["category"], reward)
                finished.add(game_id)
                tally.add_game(event)
            case "abandon":
                abandoned[event["id"]] = event["why"]
            case "evict":
                missing += tables[event["p"]].drop(event["games"], event["why"])
            case "lease":
                missing += tables[event["p"]].restore_lease(event["step"], event["version"], event["games"])
            case "seen":
                tables[event["p"]].ask(event["step"], event["version"])
            case "ack":
                tables[event["p"]].acknowledge(event["step"])
            case "rewind":
                tables[event["p"]].rewind(event["step"])
            case "finished":
                tables[event["p"]].finish()
            case "lost":
                tables[event["p"]].note_lost(event["rows"], event["at_least"])
                noted[event["p"]].update(event["games"])
            case "alarm":
                alarm.raised += 1
            case "calm":
                alarm.paused_s += event["s"]
            case unknown:
                raise ValueError(f"{unknown!r} is no event; `journal` refuses what it does not know")
    set_aside = {g: {p: [row for row, _ in rows[p]] for p in PLAYERS} for g, rows in games.items() if g not in finished}
    lost: list[Event] = []
    for player in PLAYERS:
        new = {g: n for g, n in short[player].items() if n and g not in finished and g not in noted[player]}
        if loss := _lost_event(player, new, (torn or {}).get(player, ())):
            tables[player].note_lost(loss["rows"], loss["at_least"])
            lost.append(loss)
    return Recovery(tuple(sorted(finished)), abandoned, set_aside, missing, tuple(lost))


def _group_rows(stored: Mapping[Player, Sequence[StoredBatch]], losses: Mapping[Player, Loss]) -> dict[int, _Found]:
    """All stored rows by game, with their mean rewards; two plays of a game may have left rows of the same id."""
    games: dict[int, _Found] = {}
    for player in PLAYERS:
        for found in stored[player]:
            for facts, place in zip(read_facts(found.batch, losses[player]), found.places, strict=True):
                rows = games.setdefault(facts.game_id, {p: [] for p in PLAYERS})
                rows[player].append((Row(facts.row_id, facts.version, place, facts.unlearnable), facts.reward))
    return games


def _pick(found: Sequence[tuple[Row[Place], float | None]], event: Event) -> list[tuple[Row[Place], float | None]]:
    """The rows that a `finish` event names, in its order; for an event of before rows were named the first of each id."""
    if "at" not in event:
        return list({row.row_id: (row, reward) for row, reward in reversed(found)}.values())[::-1]
    at = {(row.row_id, row.place.segment, row.place.offset, row.place.index): (row, reward) for row, reward in found}
    return [at[key] for row_id, place in event["at"].items() if (key := (row_id, *place)) in at]


def _lost_event(player: Player, lacking: Mapping[int, int], tails: Sequence[TornTail]) -> Event | None:
    """A torn tail and the journal may count the same rows, so the larger of the two counts is taken."""
    rows = max(sum(lacking.values()), sum(tail.lost_rows for tail in tails))
    at_least = any(tail.at_least for tail in tails)
    return {"e": "lost", "p": player, "rows": rows, "at_least": at_least, "games": sorted(lacking)} if rows else None
