"""The callers' side of the publisher actor: picklable adapters for learners (`PublisherSink`) and workers (`VersionClient`).

Every wait has a deadline; a publisher that is away is asked again until then.
"""

import asyncio
import time
import uuid
from typing import Any

import ray
import structlog
from ray.exceptions import RayTaskError

from cluster.calls import Unavailable, ask, ask_blocking
from cluster.publish.reports import Report, Reporter, Taken
from cluster.publish.stats import StepReport, WarmReport
from protocol.errors import NotHandedOver, VersionGone, last_line
from protocol.roles import Player
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import Holding, WeightManifest

ANSWER_S = 120.0  # to copy a version of some ten GB across the network, and more
CONFIRM_S = 2.0  # generation stands still for it
PART = "publisher-0"

log = structlog.get_logger(__name__)


class PublisherSink:
    """`LearnerSink`. Its methods block their thread, but for reports, which have one of their own. `handle` is the publisher's."""

    def __init__(self, handle: Any, answer_s: float = ANSWER_S) -> None:
        self._handle, self._answer_s = handle, answer_s
        self._reporter: Reporter | None = None  # made where it is used: threads do not travel
        self._sender = ""

    def publish(self, manifest: WeightManifest, packed: SharedBuffer) -> Holding:
        """Leaves a version; returns when it is held, and waits for no worker. No byte is moved. See `WeightSink.publish`."""
        found: Holding = self._hand("publish", manifest, packed.file(ray.get_runtime_context().get_node_id()))
        return found

    def holding(self, player: Player) -> Holding:
        """What is held of the player's versions."""
        found: Holding = self._hand("holding", player)
        return found

    def report(self, player: Player, step: int, version: int, metrics: dict[str, float]) -> None:
        """Metrics of the step that made `step` steps done. Returns at once."""
        self._report(StepReport(player, step, version, time.time(), metrics))

    def report_warm(self, player: Player, done: int, wanted: int, metrics: dict[str, float]) -> None:
        """Metrics of the step that made `done` of `wanted` steps of the warm start done. Returns at once."""
        self._report(WarmReport(player, done, wanted, metrics["nll"]))

    def flush(self, limit_s: float) -> bool:
        """Waits until the publisher has every report. False if it has not after `limit_s` seconds."""
        return self._reporter is None or self._reporter.flush(limit_s)

    def newest(self, player: Player) -> int:
        """The newest version that was published; 0 before the first."""
        return int(self.ask("newest_version", player))

    def wait_delivered(self, player: Player, version: int, timeout_s: float) -> bool:
        """True once every worker of the player serves what is for it of `version` or newer; False at the deadline."""
        return bool(self.ask("wait_delivered", player, version, timeout_s, wait_s=timeout_s))

    def ask(self, method: str, *args: Any, wait_s: float = 0.0) -> Any:
        """What the publisher's method gives. `wait_s`: how long the method itself may wait, beside the time for its answer."""
        return ask_blocking(self._handle, method, *args, part=PART, limit_s=wait_s + self._answer_s)

    def _report(self, report: Report) -> None:
        if self._reporter is None:
            self._sender = uuid.uuid4().hex
            self._reporter = Reporter(self._send_reports)
        self._reporter.add(report)

    def _send_reports(self, numbered: list[tuple[int, Report]]) -> Taken:
        taken: Taken = self._hand("take_reports", self._sender, numbered)
        return taken

    def _hand(self, method: str, *args: Any) -> Any:
        """`ask`. Raises `NotHandedOver` where the publisher is away, or could not: neither is a fault of the learner's."""
        try:
            return self.ask(method, *args)
        except Unavailable as error:
            raise NotHandedOver(str(error)) from error
        except RayTaskError as error:
            if isinstance(error.cause, OSError | ray.exceptions.RayError):  # TimeoutError is an OSError
                raise NotHandedOver(last_line(error)) from error
            raise


class VersionClient:
    """Where a generation worker gets versions: what to start with, and the bytes of what is pushed.

    Args:
        handle: the publisher actor's.
        worker: the publisher's name for the worker, which decides on the version where they differ (`push.to: spread`).
    """

    def __init__(self, handle: Any, worker: str = "", answer_s: float = ANSWER_S) -> None:
        self._handle, self._worker, self._answer_s = handle, worker, answer_s

    async def newest(self, player: Player) -> tuple[WeightManifest, Any] | None:
        """The version to start with and its bytes: this node's one copy, where it stays as it is until the worker has started.

        Else a view of it, whose bytes a newer version may replace while they are read. None: the model folder.

        Raises:
            VersionGone: it cannot be had.
        """
        while True:
            version = await self.chosen(player)
            try:
                found: tuple[WeightManifest, SharedFile, bool] | None
                found = await self._ask("newest", player, self._worker, _this_node())
                if found is None:
                    return None
                manifest, file, stays = found
                return manifest, file if stays else await asyncio.to_thread(_view, file)
            except (FileNotFoundError, VersionGone) as error:
                if await self.chosen(player) == version:
                    raise VersionGone(player, version) from error  # not because a newer one took its place

    async def chosen(self, player: Player) -> int:
        """The number of the version to start with; 0: the model folder."""
        return int(await self._ask("chosen", player, self._worker))

    async def confirm(self, player: Player, version: int, layout: str, digest: str) -> bool:
        """Whether others of the same layout that loaded the version hold the same parameters.

        True, too, where the publisher does not answer at once: generation stands still meanwhile. The report of the load tells it
        again.
        """
        try:
            asked = player, version, layout, self._worker, digest
            return bool(await ask(self._handle, "confirm", *asked, part=PART, limit_s=CONFIRM_S))
        except Unavailable:
            log.warning("load_not_confirmed", player=player, version=version)
            return True

    async def fetch(self, manifest: WeightManifest, file: SharedFile) -> SharedFile:
        """`file` itself if it is of this node, else where its one copy on this node lies. Raises `VersionGone`."""
        if file.node == _this_node():
            return file
        found: SharedFile = await self._ask("file_on", manifest.player, manifest.version, _this_node())
        return found

    async def _ask(self, method: str, *args: Any) -> Any:
        try:
            return await ask(self._handle, method, *args, part=PART, limit_s=self._answer_s)
        except RayTaskError as error:
            if isinstance(error.cause, VersionGone):  # itself: it travels on, to the publisher again
                raise error.cause from error
            raise


def _this_node() -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


def _view(file: SharedFile) -> memoryview:
    return SharedBuffer.open(file).view
