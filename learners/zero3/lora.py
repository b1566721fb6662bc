"""Low-rank adapters under ZeRO-3: attached to linear layers, swapped for the reference's forward, merged into what is staged.

A layer computes W x + (alpha / rank) B A x (Hu et al. 2021). W is frozen and partitioned like every parameter; A and B are what is
trained, averaged and checkpointed. The reference needs no second model: `frozen` is the same layer without its adapter, `ema` has
adapters of its own beside the policy's. What is pushed and exported is W + (alpha / rank) B A, under the plain Hugging Face names.
The average's weights are made of the averaged factors, avg(B) avg(A); that is not the average of the products, and no rank-r
matrix is.

Written here and not taken from peft: peft switches adapters by turning `requires_grad` of partitioned parameters on and off at each
forward, and merges whole layers in place, which is what ZeRO-3 is there to avoid. Its numbers are what the tests compare with.

Under ZeRO-3 a forward without a backward between two with one makes DeepSpeed record the order of layers anew, so some of its
prefetching is lost; `reference: sampler` has no such forward.

What is exported beside the merged weights are the factors themselves, under the names that PEFT gives them.

It does not know the average or the optimizer: shards come by name, from `engine`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from learners.zero3.shards import NamedShards, Shards
from learners.zero3.staging import Deadline
from protocol.errors import UserError
from protocol.randomness import derive_seed
from protocol.recipe import LoraConfig


class Adapter(nn.Module):
    """B A x. Starts as nothing: A is uniform as in `nn.Linear`, B is 0."""

    def __init__(self, base: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        where = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.a = nn.Linear(base.in_features, rank, bias=False, **where)
        self.b = nn.Linear(rank, base.out_features, bias=False, **where)
        bound = 1.0 / math.sqrt(base.in_features)
        drawn = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            self.a.weight.copy_(drawn)
            self.b.weight.zero_()

    def forward(self, x_BTI: torch.Tensor) -> torch.Tensor:
        out_BTO: torch.Tensor = self.b(self.a(x_BTI))
        return out_BTO


class AdaptedLinear(nn.Module):
    """A frozen linear layer with the policy's adapter and, where it has one, the reference's."""

    def __init__(self, base: nn.Linear, policy: Adapter, reference: Adapter | None, scale: float) -> None:
        super().__init__()
        self.base, self.policy, self.reference, self.scale = base, policy, reference, scale
        self.as_reference = False

    def forward(self, x_BTI: torch.Tensor) -> torch.Tensor:
        base_BTO: torch.Tensor = self.base(x_BTI)
        adapter = self.reference if self.as_reference else self.policy
        return base_BTO if adapter is None else base_BTO + self.scale * adapter(x_BTI)


class Adapters:
    """All adapters of a model that is loaded, and not yet wrapped by DeepSpeed.

    Args:
        model: its parameters are frozen, and the layers that `config.targets` names are replaced.
        config: rank, alpha, targets.
        averaged: whether the reference has adapters of its own.
        seed: the run's; every rank draws the same adapters.

    Raises:
        UserError: a target names no linear layer, or one whose weights another layer uses too.
    """

    def __init__(self, model: nn.Module, config: LoraConfig, averaged: bool, seed: int) -> None:
        self._model = model
        model.requires_grad_(False)
        self.layers: dict[str, AdaptedLinear] = {}
        for path, linear in _find_targets(model, config.targets).items():
            # Both start alike: the average of one value is that value.
            mine, reference = (
                Adapter(linear, config.rank, torch.Generator().manual_seed(derive_seed(seed, "lora", path)))
                if wanted
                else None
                for wanted in (True, averaged)
            )
            assert mine is not None
            if reference is not None:
                reference.requires_grad_(False)
            layer = AdaptedLinear(linear, mine, reference, config.alpha / config.rank)
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, layer)
            self.layers[path] = layer

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Within it the model is the reference."""
        for layer in self.layers.values():
            layer.as_reference = True
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer.as_reference = False

    def mirror(self) -> dict[str, Any]:
        """The reference's own parameters, under the names of the policy's that they follow."""
        return {
            f"{path}.policy.{name}": parameter
            for path, layer in self.layers.items()
            if layer.reference is not None
            for name, parameter in layer.reference.named_parameters()
        }

    def shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Hugging Face names and whole shapes of the model without adapters, in its own order."""
        return [(name, tuple(param.ds_shape)) for name, (param, _) in self._plain_parameters().items()]

    def factors(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and whole shapes of the policy's adapters, in the model's order."""
        return [
            (f"{path}.policy.{factor}.weight", tuple(getattr(layer.policy, factor).weight.ds_shape))
            for path, layer in self.layers.items()
            for factor in ("a", "b")
        ]

    def merge(self, adapters: Shards, device: torch.device, deadline: Deadline) -> Shards:
        """This rank's fp32 shard of each of `shapes`, with its adapter in it, on `device`.

        Reading an adapted layer's is collective: its two factors are gathered whole, and each rank multiplies the rows it has.

        Args:
            adapters: this rank's shards of the policy's adapters, or of their average.
            device: where they travel from.
            deadline: of those gathers, and all others of the version; begun when the first is read.
        """
        plain = self._plain_parameters()
        return NamedShards(plain, lambda name: self._merge(*plain[name], adapters, device, deadline))

    def _plain_parameters(self) -> dict[str, tuple[Any, str | None]]:
        """By Hugging Face name: the frozen parameter, and the path of the layer whose adapter belongs to it."""
        found: dict[str, tuple[Any, str | None]] = {}
        for name, param in self._model.named_parameters():
            path, _, rest = name.rpartition(".base.")
            if path in self.layers:
                found[f"{path}.{rest}"] = (param, path if rest == "weight" else None)
            elif not any(name.rpartition(f".{part}.")[0] in self.layers for part in ("policy", "reference")):
                found[name] = (param, None)
        return found

    def _merge(
        self, param: Any, path: str | None, adapters: Shards, device: torch.device, deadline: Deadline
    ) -> torch.Tensor:
        shard: torch.Tensor = param.ds_tensor.detach().to(device, torch.float32, copy=True)
        if path is None:
            return shard
        layer = self.layers[path]
        a_RI, b_OR = (
            _gather_whole(
                adapters[f"{path}.policy.{factor}.weight"].to(device),
                getattr(layer.policy, factor).weight.ds_shape,
                deadline,
            )
            for factor in ("a", "b")
        )
        inputs = a_RI.shape[1]
        begin = min(torch.distributed.get_rank() * len(shard), param.ds_numel)
        end = min(begin + len(shard), param.ds_numel)  # beyond it the last ranks' shards are padding
        first, last = begin // inputs, -(-end // inputs)
        change = (b_OR[first:last] @ a_RI).flatten()[begin - first * inputs : end - first * inputs]
        shard[: end - begin].add_(change, alpha=layer.scale)
        return shard


def name_for_peft(factor: str) -> str:
    """The name of one of `Adapters.factors` in a PEFT adapter of the model without adapters."""
    path, _, letter = factor.removesuffix(".weight").rpartition(".policy.")
    return f"base_model.model.{path}.lora_{letter.upper()}.weight"


def _gather_whole(shard: torch.Tensor, shape: torch.Size, deadline: Deadline) -> torch.Tensor:
    """Collective: a tensor from every rank's shard of it, on all of them. Raises `TimeoutError`."""
    pieces = [torch.empty_like(shard) for _ in range(torch.distributed.get_world_size())]
    deadline.wait(torch.distributed.all_gather(pieces, shard.contiguous(), async_op=True))
    return torch.cat(pieces)[: math.prod(shape)].view(shape)


def _find_targets(model: nn.Module, wanted: tuple[str, ...]) -> dict[str, nn.Linear]:
    """The linear layers whose last name is one of `wanted`, by path."""
    linears = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    parameters = dict(model.named_parameters())  # a tied weight is listed once, under its first owner
    free = {path: linear for path, linear in linears.items() if f"{path}.weight" in parameters}
    known = sorted({_last_name(path) for path in free})
    for target in wanted:
        if target not in known:
            why = (
                "shares its weights with another layer"
                if target in map(_last_name, linears)
                else "names no linear layer"
            )
            raise UserError(f"learners.*.lora.targets: {target} {why} of the model; pick from {', '.join(known)}")
    return {path: linear for path, linear in free.items() if _last_name(path) in wanted}


def _last_name(path: str) -> str:
    return path.rpartition(".")[2]
