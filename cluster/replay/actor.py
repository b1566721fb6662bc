"""The ReplayBuffer actor: deals games, stores what comes back, leases rows to learner steps.

A thin shell: `AdmissionRule` says how many games may start, `Dealer` which, `Table` which rows a step gets,
`Alarm` whether the judge can be asked; `Segments` and
`Journal` keep it on disk. Every method runs on one event loop and changes state without awaiting in between. Invariants:

- **durable before answered**: whatever changes rows or the end of a game returns after the fsync that covers it. So a killed
  actor, restarted over its own files, has everything that anybody was told.
- **repeatable**: each of them may be asked again (Ray retries a call whose actor died) and changes nothing more.

`cluster` wraps it with `ray.remote(max_restarts=-1, max_task_retries=-1, max_concurrency=...)`; the concurrency must exceed
the number of workers and ranks, because each may hold one long poll. It starts no process and knows no worker but by name.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import structlog

from cluster.commit import ChangeSignal, GroupCommit
from cluster.plan.replay import ReplayPlan
from cluster.replay.metering import ReplayMetrics
from cluster.replay.rules.admission import Admission, AdmissionRule, AdmissionState
from cluster.replay.rules.alarm import Alarm
from cluster.replay.rules.backpressure import Backpressure, EngineLoad
from cluster.replay.rules.dealer import Dealer
from cluster.replay.rules.events import Event
from cluster.replay.rules.facts import read_facts
from cluster.replay.rules.leases import Lease, Row
from cluster.replay.rules.selectors import Selection
from cluster.replay.rules.table import Table
from cluster.replay.rules.tally import Tally, finish_event
from cluster.replay.rules.turns import Roster
from cluster.replay.stats import ReplayStats, WaitClock, replay_stats
from cluster.replay.store.journal import JOURNAL, Journal
from cluster.replay.store.recovery import Rows, recover_state
from cluster.replay.store.segment_file import Place
from cluster.replay.store.segments import Segments
from protocol.files import sync_path
from protocol.roles import PLAYERS, Player
from protocol.rows import to_batch
from protocol.types import Deal, GameRecord, Group, Seed

OVERDUE_TOLD = 20  # of the games that are overdue at once, so many are named in the log

log = structlog.get_logger(__name__)
_NOTHING: Rows = {p: [] for p in PLAYERS}


class ReplayBuffer:
    """See the module's docstring.

    Args:
        run_dir: the run's directory; `replay/` in it is created, or recovered from.
        plan: what it is built from.
        seeds: the training seeds.
        put: leaves a table where every rank can read it, and gives a reference to it.

    Raises:
        UserError: no seeds, foreign or damaged files, or a run directory in use.
    """

    def __init__(
        self, run_dir: str, plan: ReplayPlan, seeds: list[Seed], put: Callable[[pa.Table], Any] = ray.put
    ) -> None:
        self._put = put
        self._rule = AdmissionRule(plan.admission)
        self._dealer = Dealer(plan.seed, seeds)
        self._roster = Roster.from_plan(plan)
        self._losses, self._batch_games = plan.losses, plan.admission.batch_games
        self._game_limit_s = plan.game_limit_s
        self._tables: dict[Player, Table[Place]] = {
            p: Table(plan.admission.max_staleness, plan.table.capacity_rows, Selection.from_plan(plan, p))
            for p in PLAYERS
        }
        self._tally = Tally()
        self._stopped = False
        self._learners_stop = False
        self._changed = ChangeSignal()
        self._waits = WaitClock()
        self._alarm = Alarm(plan.alarm)
        self._pressure = Backpressure.from_plan(plan)
        self._metrics = ReplayMetrics(plan.admission.max_staleness, plan.admission.batch_games, plan.both_orders)
        self._leased: dict[Player, tuple[Lease[Place], list[Any]]] = {}  # the latest lease, for the other ranks
        folder = Path(run_dir) / "replay"
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(folder / JOURNAL)
        sync_path(folder)  # the journal's name in it, and
        sync_path(folder.parent)  # its own
        self._segments = {p: Segments(folder, p) for p in PLAYERS}
        self._recover()
        self._commits = GroupCommit(self._sync, plan.table.fsync_s)

    # -- games ---------------------------------------------------------------------------------------------------------

    async def deal(self, worker: str, limit: int, wait_s: float) -> list[Deal]:
        """Up to `limit` games that admission allows now; [] after `wait_s` seconds without one, or when stopped."""
        deadline = time.monotonic() + wait_s
        with self._waits.waiting("rollout"):
            while not self._stopped:
                now = time.monotonic()
                lost = self._dealer.take_back_earlier(worker)
                if overdue := self._dealer.take_back_overdue(now, self._game_limit_s):
                    log.warning(
                        "games_overdue",
                        games=len(overdue),
                        game=sorted(overdue)[:OVERDUE_TOLD],
                        limit_s=self._game_limit_s,
                    )
                self._note_alarm(self._alarm.note_over([*lost, *overdue], now))
                games = min(limit, self._admit(now).games)
                if games > 0:
                    deals = self._dealer.deal(worker, games, now)
                    self._alarm.note_dealt(deal.game_id for deal in deals)
                    return deals
                if now >= deadline:
                    return []
                await self._changed.wait(min(deadline - now, self._alarm.wait_s(now) or deadline - now))
        return []

    async def finish(self, worker: str, records: Sequence[GameRecord]) -> None:
        """Stores finished games: every group's row in its table. A game that is over already is ignored and counted."""
        fresh: dict[int, GameRecord] = {}
        for record in records:
            if self._dealer.is_final(record.game_id) or record.game_id in fresh:
                self._dealer.late += 1
            else:
                fresh[record.game_id] = record
        stored = {p: self._store(p, list(fresh.values())) for p in PLAYERS}
        standing = self._roster.standing(self._tables)  # finishing games executes no step
        refused = {p: self._roster.refusal(p, standing) for p in PLAYERS}
        events = [
            finish_event(
                record,
                self._alarm.can_rise,
                {row.row_id: _where(row.place) for p in PLAYERS for row in stored[p][record.game_id]},
            )
            for record in fresh.values()
        ]
        self._journal.append(*events)
        for record, event in zip(fresh.values(), events, strict=True):
            self._dealer.finish(record.game_id)
            self._tally.add_game(event)
            self._note_alarm(
                self._alarm.note_finished(record.game_id, record.verdicts, record.verdicts_failed, time.monotonic())
            )
            self._set_aside.pop(record.game_id, None)
            for player in PLAYERS:
                rows = stored[player][record.game_id]
                self._tables[player].append(
                    record.game_id, rows, record.seed.category, refused[player], event["judge_failed"]
                )
        for player in PLAYERS:
            self._note_evicted(player, "capacity", self._tables[player].trim())
        self._changed.notify()
        await self._commits.commit()

    async def abandon(self, worker: str, game_id: int, reason: str) -> None:
        """Gives a game up for good; it is counted under `reason`."""
        if self._dealer.abandon(worker, game_id, reason):
            self._set_aside.pop(game_id, None)
            self._note_alarm(self._alarm.note_over([game_id], time.monotonic()))
            self._journal.append({"e": "abandon", "id": game_id, "why": reason})
            self._changed.notify()
        await self._commits.commit()

    async def worker_gone(self, worker: str) -> int:
        """A rollout worker died: its games are dealt again. Gives how many those are."""
        lost = self._dealer.take_back_from(worker)
        self._note_alarm(self._alarm.note_over(lost, time.monotonic()))
        self._changed.notify()
        return len(lost)

    async def report_load(self, engines: Sequence[EngineLoad]) -> None:
        """The load of the engines that answered now: backpressure bounds the open games by it."""
        if self._pressure is not None:
            self._pressure.report(engines, self._dealer.open_games, time.monotonic())
            self._changed.notify()

    async def stop(self) -> None:
        """No more deals: those who wait for one get [] at once. Rows still come in and go out."""
        self._stopped = True
        self._changed.notify()

    async def stop_learners(self) -> None:
        """The run ends before its last step: whoever waits for a lease is told at once, and no new one is given."""
        self._learners_stop = True
        self._changed.notify()

    async def stopping(self) -> bool:
        """Whether the learners are to save what they have and end."""
        return self._learners_stop

    # -- rows ----------------------------------------------------------------------------------------------------------

    async def lease(self, player: Player, step: int, version: int, games: int, timeout_s: float) -> list[Any] | None:
        """The batch of one learner step, the same for every rank that asks; it lies once in the object store.

        Args:
            step: optimizer step, from 0. Asking for it says that the steps before it are executed.
            version: the policy version that the step learns at; games more than `max_staleness` behind are dropped.
            games: the batch's size, `learners.PLAYER.batch_games`.
            timeout_s: how long to wait for it.

        Returns:
            A reference (in a list, so that Ray does not resolve it on the way) to the table of those games' rows that can be
            learned from, perhaps none; None if the games did not come in time, or the learners are to stop. It is kept until the
            player's next step is leased.

        Raises:
            ValueError: more than `batch_games` (admission would never let them gather), or a step learned for good.
        """
        if games > self._batch_games[player]:
            raise ValueError(f"{player}: a lease of {games} games exceeds learners.{player}.batch_games")
        deadline = time.monotonic() + timeout_s
        with self._waits.waiting(player):
            while self._learners_stop or (lease := self._try_lease(player, step, version, games)) is None:
                left = deadline - time.monotonic()
                if left <= 0 or self._learners_stop:
                    await self._commits.commit(hurry=True)
                    return None
                await self._changed.wait(left)
        await self._commits.commit(hurry=True)
        cached = self._leased.get(player)
        if cached is None or cached[0] is not lease:
            table = self._segments[player].read([row.place for row in lease.rows])
            cached = self._leased[player] = (lease, [self._put(table)])
        return cached[1]

    async def acknowledge(self, player: Player, step: int) -> None:
        """A checkpoint now contains every step below `step`: their rows are learned for good."""
        self._tables[player].acknowledge(step)
        self._journal.append({"e": "ack", "p": player, "step": step})
        self._changed.notify()
        await self._commits.commit(hurry=True)

    async def rewind(self, player: Player, step: int) -> int:
        """The learner restarted from the checkpoint of `step`: returns the leases of that step and later.

        Returns:
            The highest policy version seen for the player, in rows and leases.
        """
        self._tables[player].rewind(step)
        self._journal.append({"e": "rewind", "p": player, "step": step})
        self._changed.notify()
        await self._commits.commit(hurry=True)
        return self._tables[player].version

    async def finished(self, player: Player) -> None:
        """This learner took its last step: its table bounds admission no more, its waiting rows are evicted."""
        self._tables[player].finish()
        self._leased.pop(player, None)
        self._journal.append({"e": "finished", "p": player})
        self._changed.notify()
        await self._commits.commit(hurry=True)

    # -- the rest ------------------------------------------------------------------------------------------------------

    async def stats(self) -> ReplayStats:
        """Everything that the summary and the progress display need. Each call sets the buffer's metrics, too."""
        now = time.monotonic()
        stats = replay_stats(
            self._dealer,
            self._tables,
            self._batch_games,
            self._tally,
            self._admit(now),
            self._waits,
            self._roster,
            self._alarm,
            self._pressure,
            now,
        )
        self._metrics.report(stats)
        return stats

    def _admit(self, now_s: float) -> Admission:
        standing = self._roster.standing(self._tables)
        admission = self._rule.admit(
            AdmissionState(
                open_games=self._dealer.open_games,
                unlearned={p: t.unlearned for p, t in self._tables.items()},
                finished=standing.finished,
                turn=self._roster.turn(standing),
                steps_left=self._roster.steps_left(standing),
            )
        )
        if self._pressure is not None:
            admission = self._pressure.narrow(admission, self._dealer.open_games, now_s)
        allowed = self._alarm.limit(now_s)
        if allowed is None:
            return admission
        return Admission(min(allowed, admission.games), self._alarm.why(now_s), "judge_alarm")

    def _note_alarm(self, event: Event | None) -> None:
        if event is not None:
            self._journal.append(event)
            log.warning("judge_alarm", what=event["e"], why=self._alarm.why(time.monotonic()))

    def _try_lease(self, player: Player, step: int, version: int, games: int) -> Lease[Place] | None:
        table = self._tables[player]
        before, turn = table.unlearned, self._roster.turn(self._roster.standing(self._tables))
        new = table.ask(step, version)
        turn_now = self._roster.turn(self._roster.standing(self._tables))
        outcome = table.lease(step, version, games, may_take=turn_now is None or turn_now.player == player)
        self._note_evicted(player, "stale", outcome.stale)
        if outcome.new and outcome.lease is not None:
            ids = [unit.game_id for unit in outcome.lease.units]
            self._metrics.learned(player, outcome.lease.staleness)
            self._journal.append({"e": "lease", "p": player, "step": step, "version": version, "games": ids})
        elif new:  # so that a restart forgets neither the last version (`rewind` gives it) nor whose turn it is
            self._journal.append({"e": "seen", "p": player, "step": step, "version": version})
        if table.unlearned < before or turn_now != turn:  # a step is executed, or games went stale: others may start
            self._changed.notify()
        return outcome.lease

    def _store(self, player: Player, records: Sequence[GameRecord]) -> dict[int, list[Row[Place]]]:
        """Writes the player's rows of games and sets them aside, save those that lie there already (from before a crash).

        Returns:
            The rows of each game: those of its record, whatever else an earlier play of it left on disk.
        """
        rows: dict[int, list[Row[Place]]] = {r.game_id: [] for r in records}
        groups = list({g.row_id: g for r in records for g in r.groups if g.player == player}.values())
        self._tables[player].duplicates += sum(len(self._set_aside.get(g, _NOTHING)[player]) for g in rows)
        if not groups:
            return rows
        batch = to_batch(groups)
        there = [self._find_stored(player, group, batch.slice(k, 1)) for k, group in enumerate(groups)]
        new = [k for k, place in enumerate(there) if place is None]
        places = iter(
            self._segments[player].append(batch if len(new) == len(groups) else batch.take(pa.array(new)))
            if new
            else ()
        )
        for facts, known in zip(read_facts(batch, self._losses[player]), there, strict=True):
            row = Row(facts.row_id, facts.version, known or next(places), facts.unlearnable)
            rows[facts.game_id].append(row)
            if known is None:
                self._set_aside.setdefault(facts.game_id, {p: [] for p in PLAYERS})[player].append(row)
            self._tally.add_row(player, facts.category, facts.reward)
        return rows

    def _find_stored(self, player: Player, group: Group, row: pa.RecordBatch) -> Place | None:
        """Where an equal row of the group's game lies, from a play that was not finished; None: nowhere."""
        wanted = None
        for other in self._set_aside.get(group.game_id, _NOTHING)[player]:
            if other.row_id == group.row_id:
                wanted = wanted or pa.Table.from_batches([row])
                if self._segments[player].read([other.place]).equals(wanted):
                    return other.place
        return None

    def _note_evicted(self, player: Player, reason: str, game_ids: Sequence[int]) -> None:
        if game_ids:
            self._journal.append({"e": "evict", "p": player, "why": reason, "games": list(game_ids)})

    def _recover(self) -> None:
        events, journal_bytes = self._journal.recover()
        found = {p: s.recover() for p, s in self._segments.items()}
        stored = {p: batches for p, (batches, _) in found.items()}
        torn = {p: tails for p, (_, tails) in found.items()}
        recovered = recover_state(
            stored, events, self._tables, self._tally, self._alarm, self._roster, self._losses, torn
        )
        self._dealer.recover(recovered.finished, recovered.abandoned)
        self._set_aside = recovered.set_aside
        for tail in [tail for tails in torn.values() for tail in tails]:
            log.warning("replay_torn_tail", file=tail.file, lost_bytes=tail.lost_bytes)
        if journal_bytes:
            log.warning("replay_torn_tail", file="journal.jsonl", lost_bytes=journal_bytes)
        for event in recovered.lost:
            log.warning("replay_rows_lost", player=event["p"], rows=event["rows"], at_least=event["at_least"])
        if recovered.missing:
            log.warning("replay_rows_missing", games=recovered.missing)
        self._journal.append(*recovered.lost)
        self._journal.sync()

    def _sync(self) -> None:
        # Rows before the journal, so that a lease that is on disk has its rows there.
        for segments in self._segments.values():
            segments.sync()
        self._journal.sync()


def _where(place: Place) -> tuple[int, int, int]:
    """A place as the journal names it: the batch's length is found at its offset."""
    return place.segment, place.offset, place.index
