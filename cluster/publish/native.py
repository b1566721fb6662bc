"""The sending end of the `nccl` and `ipc` transports: vLLM's own trainer engines, driven in the background of a learner.

A `NativeSink` is a `PublisherSink` that, after the publisher has been told of a version, sends it to the workers that the publisher
named. It lives on a learner group's rank 0 and is called by its handover thread. What it sends is the version that was staged,
gathered by all ranks: so no collective of the learner's runs beside it, and the learner goes on. No byte goes another way before:
the version stays where it was staged, and is copied from there only to nodes whose workers need it so.

Invariants
- **the publisher decides**: it names the workers, keeps their deadlines and evicts who fails, as with `host`; after two failures it
  names none (`fallback`).
- **nothing waits for ever**: NCCL has no timeout, so joining and sending run in a thread of their own; at the deadline the
  communicator is aborted and the group forgotten. The next version makes a new one, of the workers that are well then.
- **who is late changes nothing**: a thread that comes back after its deadline closes what it made. It neither becomes the group of
  a later version nor sends its own.
- **there is always another way**: where no group comes about, the workers read the same bytes through `host`; a worker that
  starts always gets them that way.

The worker's end is `actors.weights.host_transfer`.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import structlog

from actors.weights.handles import to_plain
from cluster.publish.client import PublisherSink
from protocol.errors import NotHandedOver
from protocol.packed import tensor_at
from protocol.recipe import PushConfig, Transport
from protocol.roles import Player
from protocol.shared import SharedBuffer
from protocol.types import Holding, WeightManifest

log = structlog.get_logger(__name__)

MakeEngine = Callable[[Transport, int, Any, Any], Any]


class Late(Exception):
    """Raised in a thread whose deadline has passed."""


@dataclass(slots=True)
class _Group:
    """Workers that have met this learner, and what it sends to them with."""

    members: tuple[str, ...]
    engine: Any
    source: "_StagedSource"


class _Attempt:
    """One version's way to its workers, in a thread. Whoever waits for it may abandon it; it finds out at its next step."""

    def __init__(self, make: Callable[["_Attempt"], _Group], group: _Group | None, version: int) -> None:
        self._make, self._version = make, version
        self._lock = threading.Lock()
        self._abandoned = False
        self.group = group
        self.joined, self.ended = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def start(self, manifest: WeightManifest, packed: SharedBuffer) -> None:
        """Begins. `ended` is set at its end, `error` if it failed."""
        threading.Thread(target=self._run, args=(manifest, packed), name="native-push", daemon=True).start()

    def check(self) -> None:
        """Raises `Late` if nobody waits any more."""
        if self._abandoned:
            raise Late(f"version {self._version} is too late")

    def abandon(self) -> None:
        """Nobody waits for it any more. Aborts what is under way."""
        with self._lock:
            self._abandoned = True
            group, self.group = self.group, None
        _shut_down(group)

    def _run(self, manifest: WeightManifest, packed: SharedBuffer) -> None:
        try:
            group = self.group or self._make(self)
            with self._lock:
                late = self._abandoned
                self.group = None if late else group
            if late:
                _shut_down(group)
                return
            self.joined.set()
            group.source.take(manifest, packed, self.check)
            group.engine.client.take(self, manifest.version)
            group.engine.send_weights()
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            self.error = error
        finally:
            self.joined.set()
            self.ended.set()


def _shut_down(group: _Group | None) -> None:
    if group is not None:
        group.engine.shutdown()  # of NCCL: aborts what is under way, in a thread that it waits 5 s for


class NativeSink(PublisherSink):
    """See the module's docstring.

    Args:
        handle: the publisher actor's.
        push: deadlines.
        tensor_parallel: processes of a worker's engine that take part.
        make_engine: makes a trainer engine of a transport, the number of processes in its group, a client and a source.
    """

    def __init__(
        self,
        handle: Any,
        transport: Transport,
        push: PushConfig,
        tensor_parallel: int,
        make_engine: MakeEngine | None = None,
    ) -> None:
        super().__init__(handle)
        self._transport, self.push, self._parallel = transport, push, tensor_parallel
        self._make_engine = make_engine or make_vllm_engine
        self._group: _Group | None = None

    def publish(self, manifest: WeightManifest, packed: SharedBuffer) -> Holding:
        """As `PublisherSink.publish`; returns when the version was sent, or could not be."""
        holding = super().publish(manifest, packed)
        try:
            members: tuple[str, ...] = tuple(self._hand("list_receivers", manifest.player, manifest.version))
            if members and not self._send(manifest, packed, members):
                self._hand("give_up_send", manifest.player, manifest.version)
        except NotHandedOver as error:  # it is held all the same, and those who wait get the bytes from there
            log.warning("native_push_failed", transport=self._transport, why=str(error))
        return holding

    def _send(self, manifest: WeightManifest, packed: SharedBuffer, members: tuple[str, ...]) -> bool:
        """False if it failed, or was not done at the push's deadlines."""
        group, self._group = self._group, None
        if group is not None and group.members != members:
            _shut_down(group)
            group = None
        attempt = _Attempt(lambda mine: self._join(manifest, packed, members, mine), group, manifest.version)
        attempt.start(manifest, packed)
        in_time = attempt.joined.wait(self.push.join_s) and attempt.ended.wait(self.push.deadline_s)
        if in_time and attempt.error is None:
            self._group = attempt.group
            return True
        why = type(attempt.error).__name__ if in_time else "deadline"
        log.warning("native_push_failed", transport=self._transport, why=why, exc_info=attempt.error)
        attempt.abandon()
        return False

    def _join(
        self, manifest: WeightManifest, packed: SharedBuffer, members: tuple[str, ...], attempt: _Attempt
    ) -> _Group:
        client = _Client(self, manifest.player, members, self._transport, self._parallel)
        client.take(attempt, manifest.version)
        source = _StagedSource(manifest, packed)
        processes = 1 + len(members) * self._parallel
        return _Group(members, self._make_engine(self._transport, processes, client, source), source)


class _Client:
    """vLLM's `VLLMWeightSyncClient`: what its trainer engine asks of the workers goes through the publisher.

    A worker's own update is start, load and finish in one, paused and verified, so only `update_weights` says anything.
    """

    def __init__(
        self, sink: NativeSink, player: Player, members: tuple[str, ...], transport: Transport, parallel: int
    ) -> None:
        self._sink, self._player, self._members = sink, player, members
        self._transport, self._parallel = transport, parallel
        self._attempt: _Attempt | None = None
        self._version = 0

    def take(self, attempt: _Attempt, version: int) -> None:
        """The version of the next send, and who waits for it."""
        self._attempt, self._version = attempt, version

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Every worker joins at a place of its own; the learner has the first."""
        for_each = {}
        for k, member in enumerate(self._members):
            place = {"rank_offset": 1 + k * self._parallel} if "rank_offset" in init_info else {}
            for_each[member] = init_info | place
        self._sink.ask("join", self._transport, for_each, wait_s=self._sink.push.join_s)

    def start_weight_update(self) -> None:
        """Nothing is sent for a version that is too late: nobody would receive it."""
        assert self._attempt is not None
        self._attempt.check()

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Returns when every worker has answered or was given up. Raises `RuntimeError` if one was."""
        plain = to_plain(update_info)
        if not self._sink.ask("send", self._player, self._version, plain, wait_s=self._sink.push.deadline_s):
            raise RuntimeError("a worker did not take the version")

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        pass


class _StagedSource:
    """vLLM's `WeightSource` over a staged version: each tensor goes to the GPU as its turn comes."""

    def __init__(self, manifest: WeightManifest, packed: SharedBuffer) -> None:
        self.take(manifest, packed, lambda: None)

    def take(self, manifest: WeightManifest, packed: SharedBuffer, check: Callable[[], None]) -> None:
        """The version of the next pass. `check` raises once nobody waits for it: its buffer may be written again then."""
        self._manifest, self._packed, self._check = manifest, packed, check

    def metadata(self) -> list[Any]:
        import torch
        from vllm.distributed.weight_transfer.base import ParamMeta

        return [ParamMeta(t.name, getattr(torch, t.dtype), t.shape) for t in self._manifest.tensors]

    def __iter__(self) -> Any:
        import torch

        whole = torch.frombuffer(self._packed.view, dtype=torch.uint8)
        for t in self._manifest.tensors:
            self._check()
            yield t.name, tensor_at(whole, t, getattr(torch, t.dtype)).cuda(non_blocking=True)


def make_vllm_engine(transport: Transport, processes: int, client: Any, source: Any) -> Any:
    """vLLM's trainer engine, joined with the workers that `client` stands for."""
    from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
    from vllm.utils.network_utils import get_open_port

    return WeightTransferTrainerFactory.trainer_init(
        make_init_info(transport, processes, ray.util.get_node_ip_address(), get_open_port()),
        client=client,
        source=source,
    )


def make_init_info(transport: Transport, processes: int, address: str, port: int) -> Any:
    """vLLM's trainer init info. This process is the only one of the learner's that takes part, so it is rank 0 of its side.

    IPC sends one handle for each tensor, in one message: the version is on the card once more meanwhile.
    """
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    if transport == "ipc":
        return IPCTrainerInitInfo(rank=0, packed=False)
    return NCCLTrainerInitInfo(master_address=address, master_port=port, world_size=processes, rank=0)
