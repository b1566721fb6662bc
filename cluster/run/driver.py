"""One run, from placement to summary: starts the parts, watches them, measures before and after, writes what came out.

The driver owns no state that a resumed run would miss: that is in the replay buffer's segments, the learners' checkpoints and
the run directory. It restarts nothing itself (Ray, Ray Train and the publisher do); it ends the run when a learner group
gives up or when nothing moves any more.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import ray
import structlog

from cluster.inputs.find import Inputs
from cluster.measure.evaluation import Evaluation, JudgeAbsent
from cluster.measure.probe import Prober, ProbeResult, ProbeSet
from cluster.measure.promotion import decide, mark
from cluster.observe.history import History
from cluster.observe.metrics import Metrics
from cluster.observe.progress import Progress
from cluster.observe.view import snapshot_of, view_of
from cluster.run.folder import resumes_above_zero
from cluster.run.summary import summarize
from cluster.run.wiring import Parts, build, take_down
from cluster.rundir import RunDir
from cluster.sandbox.rule_judge import RuleJudge
from cluster.supervise.engine_load import report_load
from cluster.supervise.watchdog import Watchdog
from learners.storage import checkpoints
from protocol.files import write_json
from protocol.recipe import Recipe
from protocol.roles import PLAYERS, Player

POLL_S = 1.0
HEALTH_EVERY_S = 10.0  # engines and judges are asked for their health this often
ANSWER_S = 20.0  # an actor that takes longer to tell its stats is busy or restarting; its last answer stands
HISTORY_EVERY_S = 15.0
ABANDONED_ROUNDS = 3  # this many times game.in_flight given up in a row, and none finished: the games cannot be played
STOP_S = 60.0  # for the replay buffer and the rollout worker to stop after the last step

log = structlog.get_logger(__name__)


class RunFailed(Exception):
    """The run cannot go on. The message is one line; the logs say more."""


class Run:
    """Drives one run. `summary` always says how far it came."""

    def __init__(
        self,
        recipe: Recipe,
        inputs: Inputs,
        run_dir: RunDir,
        group: Any,
        progress: Progress,
        started_at: float,
        resumed: bool,
    ) -> None:
        self.recipe, self.inputs, self.run_dir, self.progress = recipe, inputs, run_dir, progress
        self._group = group
        self._started_at, self._resumed = started_at, resumed
        self._history = History(run_dir)
        self._metrics = Metrics(str(recipe.run.name))
        self._watchdog = Watchdog(recipe.run.stall_s, ABANDONED_ROUNDS * recipe.game.in_flight)
        self._replay: Mapping[str, Any] = {}
        self._publisher: Mapping[str, Any] = {}
        self._pool: Mapping[str, int] = {}
        self._health: dict[str, tuple[int, int]] = {}
        self._tokens = 0
        self._evaluation: Evaluation | None = None
        self._judging: dict[str, Any] = {}
        self._prober: Prober | None = None
        self._promotion: dict[str, Any] | None = None

    async def drive(self) -> None:
        """Runs to the last step and the last measurement.

        Raises:
            RunFailed: a learner group gave up, an engine did not start, or nothing moved for `run.stall_s`.
        """
        recipe = self.recipe
        parts = build(recipe, self.inputs, self.run_dir, self._group)
        try:
            await self._start_engines(parts)
            attacker, defender = (parts.generator(p, recipe) for p in PLAYERS)
            measuring = RuleJudge() if recipe.heldout.judge == "rules" else parts.judge(recipe)
            self._evaluation = Evaluation(recipe, self.inputs.heldout, self.run_dir, attacker, defender, measuring)
            try:
                await self._evaluation.start()
            except JudgeAbsent as e:
                raise RunFailed(str(e)) from None
            if self.inputs.probe:
                probe = ProbeSet(self.inputs.probe, parts.judge(recipe), self.run_dir, recipe.run.seed)
                self._prober = Prober(probe, recipe.judge.probe.every)
            if self._resumed:
                await self._catch_up(parts)
            self.progress.say("playing; the learners join as soon as they are up")
            async with report_load(parts.generators, parts.replay, recipe.generation.backpressure):
                rollout = asyncio.ensure_future(_wait(parts.rollout.run.remote()))
                await self._watch(parts, rollout)
                await self._stop_games(parts, rollout)
            if self.inputs.heldout:
                self.progress.say("measuring the trained players on the held-out seeds")
            await self._evaluation.end()
            self._decide_promotion()
            await self._evaluation.end_trained()
            if self._prober is not None:
                await self._prober.finish(recipe.run.steps, STOP_S)
            await self._ask_health(parts)
            await self._poll(parts)
        finally:
            if self._prober is not None:
                self._prober.close()
            try:
                await self._last_reports(parts)
            finally:
                take_down(parts)

    async def _last_reports(self, parts: Parts) -> None:
        """What the learners reported since the last poll; a run that is cut short would lose it."""
        try:
            self._history.add(await _answer(parts.publisher.drain_metrics.remote(), []))
        except RunFailed:
            log.warning("the last reports are lost with the publisher")
        self._history.write()

    async def _start_engines(self, parts: Parts) -> None:
        """Brings up every generation and judge worker at once, while the learners start."""
        groups = " and ".join(parts.learners)
        self.progress.say(f"starting the vLLM engines of both players and the ZeRO-3 groups of {groups}")
        handles = [h for p in PLAYERS for h in parts.generators[p]]
        starting = [*parts.registered, *(h.start.remote() for h in handles)]
        judging = [h.start.remote() for h in parts.judges]
        generation, engine = self.recipe.generation, self.recipe.judge.engine
        await asyncio.gather(
            _started(starting, "the engines", generation.start_deadline_s, "generation.start_deadline_s"),
            _started(judging, "the judges", engine.start_deadline_s, "judge.engine.start_deadline_s"),
        )

    async def _catch_up(self, parts: Parts) -> None:
        """After a resume the workers hold version 0; games wait for the versions that the learners push first."""
        await self._poll(parts)
        pushes = resumes_above_zero(self.run_dir, self._replay.get("versions", {}))
        try:
            async with asyncio.timeout(self.recipe.run.stall_s):
                while not pushes <= self._delivered():
                    self._check_learners(parts)
                    await self._poll(parts)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            late = ", ".join(sorted(pushes - self._delivered()))
            limit = self.recipe.run.stall_s
            raise RunFailed(
                f"the resumed weights of {late} reached no worker within {limit:.0f} s (run.stall_s)"
            ) from None

    def _delivered(self) -> set[Player]:
        """Players whose workers all serve a version that was pushed: its newest, or (`push.to: spread`) the one that is theirs."""
        done: set[Player] = set()
        for p in PLAYERS:
            mine = self._publisher.get("players", {}).get(p, {})
            if mine.get("newest", 0) > 0 and all(w["version"] > 0 for w in mine.get("workers", [])):
                done.add(p)
        return done

    async def _watch(self, parts: Parts, rollout: "asyncio.Future[Any]") -> None:
        """Polls until every learner group is done."""
        next_health = next_history = 0.0
        waiting = set(parts.learners.values())
        while waiting:
            _, pending = await asyncio.to_thread(ray.wait, list(waiting), num_returns=len(waiting), timeout=POLL_S)
            waiting = set(pending)
            self._check_learners(parts)
            if rollout.done() and rollout.exception() is not None:
                raise RunFailed(f"the rollout worker ended: {_last_line(rollout.exception())}")
            now = time.monotonic()
            if now >= next_health:
                next_health = now + HEALTH_EVERY_S
                await self._ask_health(parts)
            view = await self._poll(parts)
            if now >= next_history:
                next_history = now + HISTORY_EVERY_S
                self._history.write()
            stalled = self._watchdog.check(snapshot_of(self.recipe, view, now, self._tokens, self._health))
            if stalled is not None:
                raise RunFailed(stalled)

    def _check_learners(self, parts: Parts) -> None:
        for player, ref in parts.learners.items():
            done, _ = ray.wait([ref], timeout=0)
            if done:
                try:
                    result = ray.get(done[0])
                except ray.exceptions.RayError as e:
                    log.error("a learner group gave up", player=player, exc_info=e)
                    raise RunFailed(f"the {player}'s learner group gave up: {_last_line(e)}") from None
                if not result["delivered"]:
                    raise RunFailed(f"the {player}'s last version did not reach its workers; what is exported is newer")

    async def _poll(self, parts: Parts) -> dict[str, Any]:
        """Asks replay and publisher, and passes on what they say."""
        self._replay = await _answer(parts.replay.stats.remote(), self._replay)
        self._publisher = await _answer(parts.publisher.stats.remote(), self._publisher)
        self._history.add(await _answer(parts.publisher.drain_metrics.remote(), []))
        view = view_of(self.recipe, self._replay, self._publisher, self._pool)
        view |= {key: self._judging.get(key) for key in ("unread_rate", "cost")}
        if self._prober is not None:
            self._prober.judge_if_due(min(view[p]["step"] for p in parts.learners))
            view |= probe_view(self._prober.latest)
        self._metrics.update(view)
        self.progress.show(view)
        return view

    def _decide_promotion(self) -> None:
        """Marks the Defender's last checkpoint and its export as promoted, or says there why not."""
        gate = self.recipe.promotion
        if gate is None or self._evaluation is None:
            return
        results, samples = self._evaluation.results, self.recipe.heldout.samples
        decision = decide(results.get("start"), results.get("end"), gate, samples)
        self._promotion = decision.as_dict()
        last = checkpoints.newest(self.run_dir.checkpoints("defender"))
        for folder in (last, self.run_dir.export("defender")):
            if folder is not None and folder.is_dir():
                mark(folder, decision)
        verdict = "promoted" if decision.promoted else f"not promoted: {'; '.join(decision.reasons)}"
        self.progress.say(f"the Defender's last checkpoint is {verdict}")

    async def _ask_health(self, parts: Parts) -> None:
        """Counts who answers, and the tokens generated so far."""
        tokens = 0
        for p in PLAYERS:
            answers = await asyncio.gather(*(_answer(h.stats.remote(), None) for h in parts.generators[p]))
            tokens += sum(a["tokens"] for a in answers if a)
            self._health[p] = (sum(1 for a in answers if a), len(answers))
        judges = await asyncio.gather(*(_answer(h.stats.remote(), None) for h in parts.judges))
        self._health["judge"] = (sum(1 for a in judges if a is not None), len(judges))
        self._judging = judging_of([a for a in judges if a is not None])
        self._pool = (await _answer(parts.rollout.stats.remote(), {"judge": self._pool}))["judge"]
        self._tokens = tokens

    async def _stop_games(self, parts: Parts, rollout: "asyncio.Future[Any]") -> None:
        """No more deals; games in flight are given up and counted (`stopped`)."""
        try:
            async with asyncio.timeout(STOP_S):
                await _wait(parts.replay.stop.remote())
                await _wait(parts.rollout.stop.remote())
                self._pool = (await rollout)["judge"]
        except TimeoutError:
            log.warning("the rollout worker did not stop in time", limit_s=STOP_S)

    def summary(self, status: str, note: str = "") -> dict[str, Any]:
        """Writes `summary.json` and returns it. Of a resumed run, versions and seconds of the earlier parts are added."""
        now = time.time()
        file = self.run_dir.summary
        earlier = self.run_dir.read_summary() if self._resumed else {}
        first = self._history.first_step_at
        value = summarize(
            self.recipe,
            status,
            now - self._started_at,
            None if first is None else first - self._started_at,
            self._replay,
            self._publisher,
            self._evaluation.results if self._evaluation else {},
            note,
            earlier,
            self._pool,
        )
        value["judge"] |= self._judging
        value |= {"promotion": self._promotion, "probe": asdict(latest) if (latest := self._latest_probe()) else None}
        write_json(file, value)
        return value

    def _latest_probe(self) -> ProbeResult | None:
        return None if self._prober is None else self._prober.latest


def judging_of(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the judge workers counted since each of them started, together: see `judge.worker.JudgeWorker.stats`.

    `unread` counts samples that could not be read, by reason; `unread_rate` is their share of the samples written; an API judge's
    generator adds what it spent. Empty for a judge that writes nothing.
    """
    unread: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    for answer in answers:
        unread.update(answer.get("unread", {}))
        counted.update({k: v for k, v in answer.get("generator", {}).items() if v is not None})
    if not counted:
        return {}
    samples = counted.get("completions", counted.get("requests", 0))
    rate = sum(unread.values()) / samples if samples else None
    return {"unread": dict(unread), "unread_rate": rate, **counted}


def probe_view(result: ProbeResult | None) -> dict[str, float | None]:
    """The probe's share of a view."""
    if result is None:
        return {}
    return {"probe_drift": result.drift, "probe_changed": result.changed, "probe_accuracy": result.accuracy}


async def _started(refs: Sequence[Any], what: str, limit_s: float, key: str) -> None:
    """Waits until all have started. Raises `RunFailed` if one does not, or not within `limit_s`, the value of `key`."""
    try:
        async with asyncio.timeout(limit_s):
            await asyncio.gather(*(_wait(ref) for ref in refs))
    except TimeoutError:
        raise RunFailed(f"{what} did not start within {limit_s:.0f} s ({key})") from None
    except ray.exceptions.RayError as e:
        log.error("not started", what=what, exc_info=e)
        raise RunFailed(f"{what} did not start: {_last_line(e)}") from None


async def _wait(ref: Any) -> Any:
    """An object ref as a coroutine, for gather and timeout."""
    return await ref


async def _answer(ref: Any, last: Any) -> Any:
    """An actor's answer, or `last` while it is busy or restarting. Raises `RunFailed` if it is dead for good."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await ref
    except ray.exceptions.ActorDiedError as e:
        log.error("an actor is dead", exc_info=e)
        raise RunFailed(f"an actor died and is not restarted: {_last_line(e)}") from None
    except (TimeoutError, ray.exceptions.RayActorError) as e:
        log.warning("an actor did not answer", error=type(e).__name__)
        return last


def _last_line(error: BaseException | None) -> str:
    """The last line of an error's text: Ray puts the cause there, under the remote traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
