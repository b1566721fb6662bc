"""The engine's end of weight transfers: a buffer in host memory, loaded while generation is paused, or vLLM's own `nccl` and `ipc`.

Imported by the engine's worker process, because `worker_extension_cls` names `HostTransferExtension`; importing it registers
the transfer engine and the CPU loader below, and ties that process's life to its parent's.

Invariants
- The actor has verified the buffer before it names it here, and nobody writes it before the actor has answered.
- vLLM's own engines put the layers on the meta device in `start_weight_update`; this one waits for the buffer to be open and its
  layout to fit, so that a refusal is free.
- On a CPU every byte is copied once, straight into the parameter: `PlainLoader` left them as they were loaded. On a GPU the layers
  are loaded anew one by one, as vLLM's own engines do, because some kinds are processed after loading.

A vLLM engine has one transfer engine. This one takes versions from host memory, as every worker that starts needs them, and hands
`nccl` and `ipc` updates to vLLM's own, which it makes when a learner asks for one.

Does not own pausing, versions or deadlines (`actors.weights.update`), and does not run in the actor's process.
"""

import ctypes
import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from vllm.config import WeightTransferConfig
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors.engine.arguments import BACKEND, CPU_LOAD_FORMAT
from actors.weights.digests import digests
from actors.weights.handles import from_plain
from actors.weights.joining import Joining
from actors.weights.receive import Mappings, check_layout, read_tensors, split_evenly
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import TensorSpec

LOAD_THREADS = 4  # more do not make a copy faster
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass
class HostInitInfo(WeightTransferInitInfo):
    """What vLLM's own engine for `transport` has to agree on with the learner. `host` alone needs nothing."""

    transport: str
    native: dict[str, Any]


@dataclass
class HostUpdateInfo(WeightTransferUpdateInfo):
    """One whole model: `file` has the fields of `protocol.shared.SharedFile`, `tensors` those of `protocol.types.TensorSpec`.

    `used_again`: later versions will lie in the same buffer, so it pays to keep it mapped.
    """

    file: dict[str, Any]
    tensors: list[dict[str, Any]]
    used_again: bool

    @property
    def specs(self) -> list[TensorSpec]:
        """`tensors` as what they were before vLLM carried them."""
        return [TensorSpec(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in self.tensors]


@dataclass
class NativeUpdateInfo(WeightTransferUpdateInfo):
    """The update info of vLLM's own engine, plain (`handles`)."""

    native: dict[str, Any]


class HostWeightTransferEngine(WeightTransferEngine[HostInitInfo, HostUpdateInfo]):
    """start -> update -> finish. An error while parameters are overwritten leaves the model unusable."""

    init_info_cls = HostInitInfo
    update_info_cls = HostUpdateInfo

    def __init__(self, config: Any, vllm_config: Any, device: torch.device, model: torch.nn.Module) -> None:
        super().__init__(config, vllm_config, device, model)
        self._vllm_config = vllm_config
        self._mappings = Mappings()
        self._native: Any = None  # vLLM's own engine, once a learner asked for it
        self.joining: Joining | None = None
        self._loading_natively = False

    def init_transfer_engine(self, init_info: HostInitInfo) -> None:
        """Begins to meet a learner, and returns at once: the rendezvous waits for all others, and this process serves."""
        before, self._native = self._native, None
        self.abandon_join()

        def join() -> Any:
            if before is not None:
                before.shutdown()
            if self.device.type != "cpu" and self.device.index is not None:
                torch.accelerator.set_device_index(self.device.index)  # each thread has its own
            native: Any = WeightTransferEngineFactory.create_engine(
                WeightTransferConfig(backend=init_info.transport), self._vllm_config, self.device, self.model
            )
            native.init_transfer_engine(native.parse_init_info(init_info.native))
            return native

        self.joining = Joining(join)

    def abandon_join(self) -> None:
        """Nobody waits for the rendezvous any more."""
        joining, self.joining = self.joining, None
        if joining is not None:
            joining.abandon()

    def parse_update_info(self, update_dict: dict[str, Any]) -> Any:
        return NativeUpdateInfo(**update_dict) if "native" in update_dict else super().parse_update_info(update_dict)

    def start_weight_update(self) -> None:
        pass  # see the module's invariant

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":  # the base class synchronises always, and torch.accelerator has none on a CPU
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: HostUpdateInfo | NativeUpdateInfo) -> None:
        self._loading_natively = isinstance(update_info, NativeUpdateInfo)
        if isinstance(update_info, NativeUpdateInfo):
            if self.joining is not None:
                self._native, self.joining = self.joining.take() or self._native, None
            if self._native is None:
                raise RuntimeError("a native update for a worker that never joined a learner")
            self._native.start_weight_update()
            self._native.update_weights(from_plain(update_info.native))
            return
        file, specs = SharedFile(**update_info.file), update_info.specs
        check_layout(specs, file.nbytes)
        buffer = self._mappings.open(file) if update_info.used_again else SharedBuffer.open(file)
        wanted = {name for name, _ in self.model.named_parameters()}  # a tied lm_head is not among them
        if self.device.type != "cpu":
            initialize_layerwise_reload(self.model)
            loaded = self.model.load_weights(read_tensors(buffer, specs))
        else:
            loaded = _load_in_threads(self.model, buffer, specs)
        missing = wanted - loaded if loaded is not None else set()
        if missing:
            raise RuntimeError(f"the push left {len(missing)} parameters as they were, {min(missing)} among them")

    def finish_weight_update(self) -> None:
        if self._loading_natively:
            self._native.finish_weight_update()
        elif self.device.type != "cpu":
            finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        self.abandon_join()
        native, self._native = self._native, None
        if native is not None:
            native.shutdown()


def _load_in_threads(model: Any, buffer: SharedBuffer, tensors: Sequence[TensorSpec]) -> set[str] | None:
    """`model.load_weights` of several parts of the tensors at once, each in a thread of its own.

    While generation stands still its cores are free, but vLLM has bound this process to one of them, and one core alone moves half
    of what the memory can. So the threads may use what the actor's process may.

    Returns:
        The names of the parameters that were loaded; None if the model does not say.
    """
    cores = os.sched_getaffinity(os.getppid())
    parts = split_evenly(tensors, min(LOAD_THREADS, len(cores)))

    def load(part: Sequence[TensorSpec]) -> set[str] | None:
        os.sched_setaffinity(0, cores)  # of this thread alone
        loaded: set[str] | None = model.load_weights(read_tensors(buffer, part))
        return loaded

    with ThreadPoolExecutor(len(parts), thread_name_prefix="load") as threads:
        loaded = list(threads.map(load, parts))
    return set().union(*(part for part in loaded if part is not None)) if None not in loaded else None


class PlainLoader(DefaultModelLoader):
    """Loads a folder as usual, but keeps every projection from being repacked on the CPU, for two reasons.

    vLLM leaves an empty parameter where it repacked a linear layer, so its weight checksums would cover embeddings and norms
    only. And a tied `lm_head` has a repacked copy of its own, which no reload renews: the model would go on projecting with
    the old embeddings while every checksum shows the new ones.
    """

    def __init__(self, load_config: Any) -> None:
        super().__init__(dataclasses.replace(load_config, load_format="auto"))

    def load_weights(self, model: torch.nn.Module, model_config: Any) -> None:
        for layer in model.modules():
            if isinstance(layer, LinearBase) and isinstance(layer.quant_method, UnquantizedLinearMethod):
                layer._cpu_skip_gemm_dispatch = True  # vLLM's own switch; it has none for embeddings
        super().load_weights(model, model_config)

    def load_model(self, *args: Any, **kwargs: Any) -> torch.nn.Module:
        model: torch.nn.Module = super().load_model(*args, **kwargs)
        _project_plainly(model)
        return model


def _project_plainly(model: torch.nn.Module) -> None:
    """Lets embeddings project with the parameter itself."""
    for layer in model.modules():
        if isinstance(layer, VocabParallelEmbedding) and isinstance(layer.quant_method, UnquantizedEmbeddingMethod):
            layer.cpu_linear = torch.nn.functional.linear


class HostTransferExtension:
    """Named in `worker_extension_cls`: vLLM adds its methods to those of its worker class."""

    _digests: "Future[dict[str, str]] | None" = None

    def begin_parameter_digests(self) -> None:
        """Starts hashing every parameter, in a thread: generation goes on meanwhile. They must not change before they are read."""
        model: torch.nn.Module = self.model_runner.get_model()  # type: ignore[attr-defined]
        prefix: str = self._weight_checksum_prefix()  # type: ignore[attr-defined]
        self._digests = _hashing.submit(_hash_parameters, model, prefix)

    def read_join(self) -> str:
        """How far the rendezvous with a learner is; see `Joining.state`."""
        joining: Joining | None = self.weight_transfer_engine.joining  # type: ignore[attr-defined]
        return "failed: nobody asked" if joining is None else joining.state

    def abandon_join(self) -> None:
        """Nobody waits for it any more."""
        self.weight_transfer_engine.abandon_join()  # type: ignore[attr-defined]

    def read_parameter_digests(self) -> dict[str, str] | None:
        """A digest of each parameter's bytes by vLLM's name for it, or None as long as they are not all hashed."""
        if self._digests is None or not self._digests.done():
            return None
        return self._digests.result()


_hashing = ThreadPoolExecutor(1, thread_name_prefix="parameter-digests")


def _hash_parameters(model: torch.nn.Module, prefix: str) -> dict[str, str]:
    """By name. vLLM's own digests are sha256 of a copy on the host, which takes seconds for each GB."""
    return {prefix + name: digest for name, digest in digests(model.named_parameters()).items()}


def _die_with_parent() -> None:
    """Lets the kernel kill this process with the one that started it: a SIGKILLed actor cannot shut its engine down.

    By the kernel, because a thread that watches its parent does not run in a process that was stopped, or hangs.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it died before
        os._exit(1)


WeightTransferEngineFactory.register_engine(BACKEND, HostWeightTransferEngine)
register_model_loader(CPU_LOAD_FORMAT)(PlainLoader)
_die_with_parent()
