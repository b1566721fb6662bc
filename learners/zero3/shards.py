"""The fp32 shards of a model under ZeRO-3, and the exponential moving average that is kept on them.

Invariants: every rank averages its own shard, nothing is gathered for that; the average is taken against the fp32 master shards in
fp32, whatever the compute dtype, for at a learning rate of 1e-6 a bfloat16 average would round every change away.

A model here is a DeepSpeed engine. Whose shards are averaged, and when, is decided in `engine`; how they leave is in `staging`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Shards = Mapping[str, torch.Tensor]


class NamedShards(Shards):
    """Shards that are made when they are read, one at a time: in another place or form, without a second copy of all of them."""

    def __init__(self, names: Iterable[str], read: Callable[[str], torch.Tensor]) -> None:
        self._names, self._read = tuple(names), read

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def master_shards(engine: Any) -> Shards:
    """This rank's fp32 master shard of each trained parameter of a model, the last rank's padding included.

    They are on the device that computes; where the optimizer's states are offloaded, each is copied there as it is read.
    """
    from deepspeed.utils import safe_get_local_fp32_param

    trained = {name: param for name, param in engine.module.named_parameters() if param.requires_grad}
    return NamedShards(trained, lambda name: safe_get_local_fp32_param(trained[name]))


def rounded_shards(model: Any, device: torch.device) -> Shards:
    """This rank's compute partition of each parameter of a model: its fp32 shard, rounded once to the compute dtype."""
    params = dict(model.named_parameters())
    return NamedShards(params, lambda name: params[name].ds_tensor.data.to(device))


@dataclass(frozen=True, slots=True)
class Mirror:
    """Parameters that follow the average, under the names of the trained ones; `drop_gathered` drops what was gathered of them."""

    parameters: Mapping[str, Any]
    drop_gathered: Callable[[], None]


class Average:
    """ema <- decay * ema + (1 - decay) * master, on this rank's shards. Starts as the masters.

    Args:
        masters: the trained shards.
        decay: see above.
        mirror: what computes with the average, or None if only the shards are wanted. With float32 compute its partitions are the
            shards themselves, if they are in the same place; otherwise they are a copy beside them.
        device: where the shards are kept.
    """

    def __init__(self, masters: Shards, decay: float, mirror: Mirror | None, device: torch.device) -> None:
        self._decay, self._mirror = decay, mirror
        self.shards: dict[str, torch.Tensor] = {}
        for name, master in masters.items():
            mirrored = master if mirror is None else mirror.parameters[name].ds_tensor.data
            shared = mirrored is not master and mirrored.dtype is torch.float32 and mirrored.device == device
            self.shards[name] = mirrored if shared else master.detach().to(device, copy=True)

    def update(self, masters: Shards) -> torch.Tensor:
        """Takes one step's weights in.

        Returns:
            Of this rank's shards, squared: the distance of the masters from the new average, and the masters' norm; (2,) fp64, on
            the device where the shards are kept.
        """
        self._drop_gathered()
        squares = []
        with torch.no_grad():
            for name, shard in self.shards.items():
                master = masters[name].to(shard.device)
                shard.lerp_(master, 1.0 - self._decay)
                squares.append(torch.stack([torch.linalg.vector_norm(v) for v in (master - shard, master)]))
        self._copy_to_mirror()
        return torch.stack(squares).double().square().sum(0)

    def load(self, shards: Shards) -> None:
        """Goes on from saved shards of the same layout."""
        self._drop_gathered()
        with torch.no_grad():
            for name, shard in self.shards.items():
                shard.copy_(shards[name])
        self._copy_to_mirror()

    def read_on(self, device: torch.device) -> Shards:
        """The shards as read from `device`."""
        return NamedShards(self.shards, lambda name: self.shards[name].to(device))

    def _drop_gathered(self) -> None:
        """A copy gathered for a forward must not outlive the shards it came from."""
        if self._mirror is not None:
            self._mirror.drop_gathered()

    def _copy_to_mirror(self) -> None:
        if self._mirror is None:
            return
        with torch.no_grad():
            for name, param in self._mirror.parameters.items():
                if param.ds_tensor.data_ptr() != self.shards[name].data_ptr():
                    param.ds_tensor.copy_(self.shards[name])
