"""The GenerationWorker: hosts one player's engine, answers asks, takes new versions while it does.

Life: made (cheap) -> started (engine built, newest published version loaded) -> ready <-> updating. A broken engine is thrown away;
the worker is not ready then, until somebody starts it again.

Invariants:
- It serves only versions that it can name: the folder's weights (0) or a push that it loaded and, before it served, verified.
- Its version never goes down while the worker lives.
- Loads happen one at a time; asks go on meanwhile.
- Only `start` builds an engine. Whatever else needs one is refused at once where there is none.

A plain class: `cluster` makes it a Ray actor. Does not publish, retry, choose workers or restart itself.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog
from structlog.contextvars import bound_contextvars

from actors.engine.engine import Engine
from actors.engine.occupancy import OccupancyStats
from actors.errors import GenerationDeadline, PromptTooLong, WeightsRefused, WorkerBroken
from actors.weights.receive import Mappings
from actors.weights.update import LoadedWeights, LoadReport, Phases, digest_of, join, update
from protocol import metrics as m
from protocol.exchange import Batch, NotReady, Replies, Vitals
from protocol.inbox import Inbox
from protocol.meter import meter
from protocol.recipe import DeadlinesConfig, GenerationConfig
from protocol.roles import Player
from protocol.shared import SharedFile
from protocol.types import Ask, Completion, WeightManifest

__all__ = ["GenerationStats", "GenerationWorker", "LoadReport", "VersionSource", "WeightsRefused", "WorkerBroken"]
_log = structlog.get_logger(__name__)


class VersionSource(Protocol):
    """Where a starting worker learns what is newest. Picklable: it travels to the worker's process."""

    async def newest(self, player: Player) -> tuple[WeightManifest, Any] | None:
        """The version to start with and its packed bytes; None while only version 0 exists.

        The bytes are a `SharedFile` of this node, which stays as it is until the worker has started, or bytes-like: those may
        change under the reader.
        """
        ...

    async def chosen(self, player: Player) -> int:
        """The number of that version; 0: the starting weights."""
        ...

    async def confirm(self, player: Player, version: int, layout: str, digest: str) -> bool:
        """Whether others of the same layout that loaded the version hold the same parameters, as far as anybody knows."""
        ...

    async def fetch(self, manifest: WeightManifest, file: SharedFile) -> SharedFile:
        """Where the bytes of a version that is pushed lie on this node: `file` itself, or the node's one copy."""
        ...


@dataclass(frozen=True, slots=True)
class GenerationStats:
    """A worker since it was made.

    Attributes:
        pid: its process.
        version: that a request asked now is sampled under.
        serving: whether an engine runs.
        requests: asks taken; `in_flight`: samples that its engine is at.
        tokens: generated, of answered asks.
        starts: engines built; `start_s`: seconds that the last one took, its first version included.
        loads: versions taken in flight; `load_s`, `pause_s`: seconds of the last one, and of them without generation.
        busy_s: seconds with at least one ask in hand.
        occupancy: how full the engine is; None without an engine.
    """

    pid: int = 0
    version: int = 0
    serving: bool = False
    requests: int = 0
    tokens: int = 0
    in_flight: int = 0
    starts: int = 0
    loads: int = 0
    start_s: float = 0.0
    load_s: float = 0.0
    pause_s: float = 0.0
    busy_s: float = 0.0
    occupancy: OccupancyStats | None = None


class GenerationWorker:
    """One engine of one player.

    Args:
        player: whose policy this is.
        model_path: a Hugging Face folder; its weights are version 0.
        config: the recipe's `generation` section.
        versions: asked on every start for what to serve; None serves the folder until somebody calls `load`.
        template_arguments: of the model's chat template.
    """

    def __init__(
        self,
        player: Player,
        model_path: str,
        config: GenerationConfig,
        versions: VersionSource | None = None,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._player = player
        self._model_path = model_path
        self._config = config
        self._versions = versions
        self._template_arguments = dict(template_arguments or {})
        self._engine: Engine | None = None
        self._weights = LoadedWeights("")
        self._mappings = Mappings()
        self._version = 0
        self._closing: set[asyncio.Task[None]] = set()  # of engines that were thrown away
        self._starting = asyncio.Lock()
        self._updating = asyncio.Lock()
        self._inbox = Inbox(self._generate, self._vitals)
        self._requests = self._tokens = self._starts = self._loads = 0
        self._start_s = self._load_s = self._pause_s = 0.0

    async def start(self) -> int:
        """Builds the engine unless it runs, and brings it to the newest version. Gives the version it serves.

        Raises:
            TimeoutError: the newest version did not come within `start_deadline_s`.
            WeightsRefused, WorkerBroken: it came and could not be loaded. The worker does not serve then.
        """
        async with self._starting:
            if self._engine is None:
                await self._build()
            return self._version

    async def _build(self) -> None:
        started = time.perf_counter()
        arguments = self._template_arguments
        if self._closing:
            await asyncio.wait(self._closing)  # the one before has the GPU's memory until it is gone
        engine = await Engine.build(self._model_path, self._config, template_arguments=arguments)
        try:
            async with asyncio.timeout(self._config.start_deadline_s):
                weights, version = LoadedWeights(digest_of(await engine.checksums())), 0
            if self._versions is not None:
                weights, version = await self._load_newest(engine, self._versions, weights)
        except BaseException:
            await self._close(engine)
            raise
        self._weights, self._version, self._engine = weights, version, engine
        self._start_s = time.perf_counter() - started
        self._starts += 1
        _log.info("worker serves", player=self._player, version=version, start_s=round(self._start_s, 1))

    async def _load_newest(
        self, engine: Engine, versions: VersionSource, weights: LoadedWeights
    ) -> tuple[LoadedWeights, int]:
        """Loads what there is to start with. Gives what the engine holds then, and its version."""
        limit_s = self._config.start_deadline_s
        limits = DeadlinesConfig(**dict.fromkeys(DeadlinesConfig.model_fields, limit_s))
        async with asyncio.timeout(limit_s):
            while True:
                found = await versions.newest(self._player)
                if found is None or found[0].version == 0:
                    return weights, 0
                manifest, packed = found
                try:
                    report = await self._update(engine, manifest, packed, weights, Phases(limits, limit_s))
                except WeightsRefused:
                    if await versions.chosen(self._player) == manifest.version:
                        raise
                    continue  # its buffer was written again while we read it, because there is a newer version
                return LoadedWeights(report.checksum_after, manifest.checksum), manifest.version

    async def _update(
        self, engine: Engine, manifest: WeightManifest, packed: Any, before: LoadedWeights, phases: Phases
    ) -> LoadReport:
        config, versions = self._config, self._versions
        layout = f"{engine.dtype}-{'gpu' if config.gpus_per_worker else 'cpu'}-tp{config.tensor_parallel}"

        async def confirm(digest: str) -> bool:
            return versions is None or await versions.confirm(self._player, manifest.version, layout, digest)

        report = await update(engine, manifest, packed, before, phases, self._mappings, confirm)
        return replace(report, layout=layout)

    def _running_engine(self) -> Engine:
        if self._engine is None:
            raise NotReady("the worker has no engine; it must be started")
        return self._engine

    async def exchange(self, caller: str, batch: Batch, wait_s: float) -> Replies:
        """See `protocol.exchange`; an ask is an `Ask`, its answer what `generate` gives."""
        return await self._inbox.exchange(caller, batch, wait_s)

    async def generate(self, ask: Ask) -> list[Completion]:
        """One completion for each seed of the ask, in that order.

        Raises:
            PromptTooLong: the prompt leaves no room in `max_model_len`.
            GenerationDeadline: not done within `generation.deadline_s`.
            NotReady: it has no engine.
            WorkerBroken: the engine was lost meanwhile.
        """
        return await self._generate(ask)

    async def _generate(self, ask: Ask, begin: Callable[[], None] | None = None) -> list[Completion]:
        with bound_contextvars(game=ask.game, ask=ask.id):
            return await self._answer(ask, begin)

    async def _answer(self, ask: Ask, begin: Callable[[], None] | None) -> list[Completion]:
        engine = self._running_engine()
        self._requests += 1
        outcome = "given_up"
        try:
            async with asyncio.timeout(self._config.deadline_s):
                completions = await engine.generate(ask, begin)
            outcome = "answered"
        except TimeoutError:
            outcome = "late"
            raise GenerationDeadline(f"no completion within generation.deadline_s {self._config.deadline_s}") from None
        except PromptTooLong:
            outcome = "too_long"
            raise
        except WorkerBroken:
            outcome = "broken"
            self._discard(engine)
            raise
        finally:
            meter().inc(m.REQUESTS, player=self._player, outcome=outcome)
        self._tokens += sum(len(c.token_ids) for c in completions)
        self._count(completions)
        return completions

    def _count(self, completions: Sequence[Completion]) -> None:
        to, player = meter(), self._player
        to.inc(m.GENERATED_TOKENS, sum(len(c.token_ids) for c in completions), player=player)
        to.inc(m.SURPRISAL, -sum(sum(c.logprobs) for c in completions), player=player)
        for completion in completions:
            to.observe(m.COMPLETION_TOKENS, len(completion.token_ids), player=player)

    async def health(self) -> Vitals:
        """How the worker is. An engine that vLLM knows to be dead is thrown away. Each call sets its gauges, too."""
        engine = self._engine
        self._measure(engine)
        if engine is not None:
            try:
                await engine.check_health()
            except WorkerBroken:
                self._discard(engine)
        return self._inbox.vitals()

    def _measure(self, engine: Engine | None) -> None:
        to, player = meter(), self._player
        occupancy = OccupancyStats() if engine is None else engine.occupancy.read()
        to.set(m.ENGINE_RUNNING, 0 if engine is None else engine.running, player=player)
        to.set(m.ENGINE_WAITING, occupancy.waiting, player=player)
        to.set(m.KV_USAGE, occupancy.kv_usage, player=player)
        to.total(m.PREEMPTIONS, occupancy.preemptions, player=player)
        to.total(m.ENGINE_BUSY, self._inbox.busy_s, player=player)
        to.set(m.ENGINE_START, self._start_s, player=player)

    def _vitals(self) -> Vitals:
        engine = self._engine
        if engine is None:
            return Vitals(starting=self._starting.locked())
        return Vitals(ready=True, steps=engine.steps, paused=engine.paused)

    async def load(
        self, manifest: WeightManifest, packed: Any, deadline_s: float, limits: DeadlinesConfig | None = None
    ) -> LoadReport:
        """Takes a new version in flight. A version that is not newer than the one served is ignored, and the report says so.

        Args:
            packed: a `SharedFile`, a `NativeUpdate`, or bytes-like, `manifest.nbytes` long.
            deadline_s: for all phases, once it is this load's turn.
            limits: of each phase; None: the recipe's defaults.

        Raises:
            WeightsRefused, PushLate: nothing was loaded, the worker serves on under its old version.
            NotReady: it has no engine.
            WorkerBroken: it failed half-way; the engine is gone.
        """
        engine = self._running_engine()
        async with self._updating:
            if self._engine is not engine:
                raise WorkerBroken("the engine was lost before the load")
            if manifest.version <= self._version:
                return LoadReport(self._version, self._weights.digest, moved=False, ignored=True)
            phases = Phases(limits or DeadlinesConfig(), deadline_s)
            try:
                if isinstance(packed, SharedFile) and self._versions is not None:
                    async with phases("send"):
                        packed = await self._versions.fetch(manifest, packed)
                report = await self._update(engine, manifest, packed, self._weights, phases)
            except WorkerBroken:
                self._discard(engine)
                raise
            self._weights = LoadedWeights(report.checksum_after, manifest.checksum)
            self._version = manifest.version
        self._loads += 1
        self._load_s, self._pause_s = report.phases["load"], report.pause_s
        return report

    async def join(self, transport: str, native: dict[str, Any], limit_s: float) -> None:
        """Meets a learner that will send versions through vLLM's `nccl` or `ipc`. The engine serves meanwhile, and takes pushes.

        Raises:
            PushLate: not all members came within `limit_s` seconds. Whoever comes later is not met.
            JoinFailed: a rendezvous failed.
        """
        engine = self._running_engine()
        await join(engine, transport, native, limit_s)

    def _discard(self, engine: Engine) -> None:
        if self._engine is engine:
            self._engine = None
            _log.error("engine thrown away", player=self._player, version=self._version)
        closing = asyncio.create_task(self._close(engine))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    @staticmethod
    async def _close(engine: Engine) -> None:
        """Fails whoever waits at once; the engine's processes end in a thread, because that takes seconds."""
        engine.give_up()
        await asyncio.to_thread(engine.close)

    async def version(self) -> int:
        """The version that a request asked now is sampled under."""
        return self._version

    async def checksums(self) -> dict[str, str]:
        """A digest of each parameter as the engine holds it, by vLLM's name (q, k, v are one tensor there)."""
        return await self._running_engine().checksums()

    async def stats(self) -> GenerationStats:
        """Counts, this process, and how full the engine is."""
        engine = self._engine
        return GenerationStats(
            pid=os.getpid(),
            version=self._version,
            serving=engine is not None,
            requests=self._requests,
            tokens=self._tokens,
            in_flight=engine.running if engine is not None else 0,
            starts=self._starts,
            loads=self._loads,
            start_s=self._start_s,
            load_s=self._load_s,
            pause_s=self._pause_s,
            busy_s=self._inbox.busy_s,
            occupancy=None if engine is None else engine.occupancy.read(),
        )

    async def shutdown(self) -> None:
        """Ends the engine's processes."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await self._close(engine)
