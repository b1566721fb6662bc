"""The sending end of the `nccl` and `ipc` transports: vLLM's own trainer engines, driven in the background of a learner.

A `NativeSink` is a `PublisherSink` that, after the publisher has taken a version over, sends it to the workers that the publisher
named. It lives on a learner group's rank 0 and is called by its handover thread. What it sends is the version that was staged,
gathered by all ranks: so no collective of the learner's runs beside it, and the learner goes on.

Invariants
- **the publisher decides**: it names the workers, keeps their deadlines and evicts who fails, as with `host`.
- **nothing waits for ever**: NCCL has no timeout, so joining and sending run in a thread of their own; at the deadline the
  communicator is aborted and the group forgotten. The next version makes a new one, of the workers that are well then.
- **there is always another way**: where no group comes about, the publisher sends the same bytes through `host`; a worker that
  starts always gets them that way.

The worker's end is `actors.weights.host_transfer`.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import ray
import structlog

from actors.weights.handles import to_plain
from cluster.publish.client import PublisherSink
from protocol.packed import tensor_at
from protocol.recipe import PushConfig, Transport
from protocol.roles import Player
from protocol.shared import SharedBuffer
from protocol.types import WeightManifest

log = structlog.get_logger(__name__)

MakeEngine = Callable[[Transport, int, Any, Any], Any]


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
        self._members: tuple[str, ...] = ()
        self._engine: Any = None
        self._source: Any = None

    def publish(self, manifest: WeightManifest, packed: Any) -> Sequence[int]:
        """As `PublisherSink.publish`; returns when the version was sent, or could not be."""
        given_back = super().publish(manifest, packed)
        members: tuple[str, ...] = tuple(self.ask("list_receivers", manifest.player, manifest.version))
        if members and not self._run_in_time(lambda: self._send(manifest, packed, members)):
            self._shut_down_engine()
            self.ask("give_up_send", manifest.player, manifest.version)
        return given_back

    def _run_in_time(self, work: Callable[[], None]) -> bool:
        """Runs it in a thread. False if it failed, or was not done at the push's deadline."""
        failed: list[Exception] = []

        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001  # logged below, also when the thread is late and has no error yet
                failed.append(error)

        thread = threading.Thread(target=run, name="native-push", daemon=True)
        thread.start()
        thread.join(self.push.deadline_s)
        late = thread.is_alive()
        if late or failed:
            why = "deadline" if late else type(failed[0]).__name__
            log.warning(
                "native_push_failed", transport=self._transport, why=why, exc_info=failed[0] if failed else None
            )
        return not (late or failed)

    def _send(self, manifest: WeightManifest, packed: SharedBuffer, members: tuple[str, ...]) -> None:
        if members != self._members:
            self._shut_down_engine()
            client = _Client(self, manifest.player, members, self._transport, self._parallel)
            self._source = _StagedSource(manifest, packed)
            processes = 1 + len(members) * self._parallel
            self._engine = self._make_engine(self._transport, processes, client, self._source)
            self._members = members
        self._source.take(manifest, packed)
        self._engine.client.version = manifest.version
        self._engine.send_weights()

    def _shut_down_engine(self) -> None:
        engine, self._engine, self._members = self._engine, None, ()
        if engine is not None:
            engine.shutdown()  # of NCCL: aborts what is under way, in a thread that it waits 5 s for


class _Client:
    """vLLM's `VLLMWeightSyncClient`: what its trainer engine asks of the workers goes through the publisher.

    A worker's own update is start, load and finish in one, paused and verified, so only `update_weights` says anything.
    """

    def __init__(
        self, sink: NativeSink, player: Player, members: tuple[str, ...], transport: Transport, parallel: int
    ) -> None:
        self._sink, self._player, self._members = sink, player, members
        self._transport, self._parallel = transport, parallel
        self.version = 0

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Every worker joins at a place of its own; the learner has the first."""
        for_each = {}
        for k, member in enumerate(self._members):
            place = {"rank_offset": 1 + k * self._parallel} if "rank_offset" in init_info else {}
            for_each[member] = init_info | place
        self._sink.ask("join", self._transport, for_each)

    def start_weight_update(self) -> None:
        pass

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Returns when every worker has answered or was given up. Raises `RuntimeError` if one was."""
        plain = to_plain(update_info)
        if not self._sink.ask("send", self._player, self.version, plain, wait_s=self._sink.push.deadline_s):
            raise RuntimeError("a worker did not take the version")

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        pass


class _StagedSource:
    """vLLM's `WeightSource` over a staged version: each tensor goes to the GPU as its turn comes."""

    def __init__(self, manifest: WeightManifest, packed: SharedBuffer) -> None:
        self.take(manifest, packed)

    def take(self, manifest: WeightManifest, packed: SharedBuffer) -> None:
        """The version of the next pass."""
        self._manifest, self._packed = manifest, packed

    def metadata(self) -> list[Any]:
        import torch
        from vllm.distributed.weight_transfer.base import ParamMeta

        return [ParamMeta(t.name, getattr(torch, t.dtype), t.shape) for t in self._manifest.tensors]

    def __iter__(self) -> Any:
        import torch

        whole = torch.frombuffer(self._packed.view, dtype=torch.uint8)
        for t in self._manifest.tensors:
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
