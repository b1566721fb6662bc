"""Shards cut anew for another number of ranks. With the real engine: integration/learners/test_zero3.py."""

import itertools
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from learners.zero3.reshard import OldStates, cut, part_of


def shards(whole: torch.Tensor, ranks: int) -> list[torch.Tensor]:
    """As ZeRO-3 lays a parameter out; what stands in the padding is nobody's."""
    part = part_of(len(whole), ranks)
    padded = torch.full((part * ranks,), float("nan"))
    padded[: len(whole)] = whole
    return list(padded.split(part))


@pytest.mark.parametrize("numel", [1, 2, 7, 12, 64, 101])
def test_parts_of_any_number_of_ranks_become_those_of_any_other(numel: int) -> None:
    whole = torch.arange(1.0, numel + 1)
    for old, new in itertools.product((1, 2, 3, 4, 8), repeat=2):
        had = shards(whole, old)
        made = [cut(had.__getitem__, numel, old, rank, new) for rank in range(new)]
        assert {len(part) for part in made} == {part_of(numel, new)}
        joined = torch.cat(made)
        assert torch.equal(joined[:numel], whole) and not joined[numel:].any(), (old, new)


@pytest.mark.parametrize("prefix", ["", "bf16_"])  # as DeepSpeed calls them by the compute dtype
def test_deepspeeds_files_are_read_by_name_through_their_flat_groups(prefix: str, tmp_path: Path) -> None:
    shapes = [OrderedDict(a=torch.Size([3, 5]), b=torch.Size([4])), OrderedDict(c=torch.Size([7]))]
    wholes = {name: torch.randn(shape.numel()) for group in shapes for name, shape in group.items()}
    for rank in range(2):
        flat = [torch.cat([shards(wholes[name], 2)[rank] for name in group]) for group in shapes]
        states = {
            k: {"step": torch.tensor(9.0), "exp_avg": one * 2, "exp_avg_sq": one * 3} for k, one in enumerate(flat)
        }
        zero = {"fp32_flat_groups": flat, "optimizer_state_dict": {"state": states, "param_groups": []}}
        torch.save({"optimizer_state_dict": zero}, tmp_path / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        torch.save({"param_shapes": shapes}, tmp_path / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
    old = OldStates(tmp_path, 2)
    assert old.shapes == {"a": (3, 5), "b": (4,), "c": (7,)} and old.steps == 9
    for name, whole in wholes.items():
        for key, times in (("fp32", 1), ("exp_avg", 2), ("exp_avg_sq", 3)):
            parts = [cut(old.piece(name, key), len(whole), 2, rank, 3) for rank in range(3)]
            assert torch.equal(torch.cat(parts)[: len(whole)], whole * times), (name, key)


def test_a_ranks_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"zero_pp_rank_0_mp_rank_00_optim_states.pt: .* are not there"):
        OldStates(tmp_path, 2)
