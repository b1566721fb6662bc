"""vLLM's end of the `host` weight transfer: one file in host memory, verified whole, then loaded layer by layer.

Imported by the engine's worker process, because `worker_extension_cls` names `HostTransferExtension`; importing it registers
the transfer engine and the CPU loader below, and ties that process's life to its parent's.

Invariant: until the checksum of the whole buffer was verified, not one parameter has been touched. vLLM's own engines put the
layers on the meta device in `start_weight_update`; this one does it after the verification, so that a refusal is free.

Does not own pausing, versions or deadlines (`actors.update`), and does not run in the actor's process.
"""

import dataclasses
import multiprocessing
import os
import threading
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import torch
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

from actors import packed
from actors.engine_args import BACKEND, CPU_LOAD_FORMAT

PARENT_POLL_S = 1.0  # how long an engine may outlive its actor


@dataclass
class HostInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand."""


@dataclass
class HostUpdateInfo(WeightTransferUpdateInfo):
    """One whole model: `tensors` are dicts of `protocol.types.TensorSpec`, `checksum` is over all `nbytes` of `path`."""

    path: str
    tensors: list[dict[str, Any]]
    checksum: str
    nbytes: int


class HostWeightTransferEngine(WeightTransferEngine[HostInitInfo, HostUpdateInfo]):
    """start -> update (verify, then load) -> finish. An error after the verification leaves the model unusable."""

    init_info_cls = HostInitInfo
    update_info_cls = HostUpdateInfo

    def init_transfer_engine(self, init_info: HostInitInfo) -> None:
        pass

    def start_weight_update(self) -> None:
        pass  # see the module's invariant

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":  # the base class synchronises always, and torch.accelerator has none on a CPU
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: HostUpdateInfo) -> None:
        packed.check_layout(update_info.tensors, update_info.nbytes)
        buffer = packed.open_verified(update_info.path, update_info.nbytes, update_info.checksum)
        wanted = {name for name, _ in self.model.named_parameters()}  # a tied lm_head is not among them
        initialize_layerwise_reload(self.model)
        loaded = self.model.load_weights(packed.iterate(buffer, update_info.tensors))
        missing = wanted - loaded if loaded is not None else set()
        if missing:
            raise RuntimeError(f"the push left {len(missing)} parameters as they were, {min(missing)} among them")

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            _project_plainly(self.model)

    def shutdown(self) -> None:
        pass


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
    """Lets embeddings project with the parameter itself. Again after each reload, which repacks those that it loads."""
    for layer in model.modules():
        if isinstance(layer, VocabParallelEmbedding) and isinstance(layer.quant_method, UnquantizedEmbeddingMethod):
            layer.cpu_linear = torch.nn.functional.linear


class HostTransferExtension:
    """Named in `worker_extension_cls`, only so that the worker process imports this module."""


def _leave_with_parent() -> None:
    """Ends this process when the one that started it is gone: a SIGKILLed actor cannot shut its engine down."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    while os.getppid() == parent.pid:
        connection.wait([parent.sentinel], timeout=PARENT_POLL_S)
    os._exit(1)  # a worker may be in a kernel; nothing here is worth an orderly end


WeightTransferEngineFactory.register_engine(BACKEND, HostWeightTransferEngine)
register_model_loader(CPU_LOAD_FORMAT)(PlainLoader)
threading.Thread(target=_leave_with_parent, name="leave-with-parent", daemon=True).start()
