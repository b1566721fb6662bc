"""Which rank writes down which file of a checkpoint, and what of a damaged one is found without the list."""

from pathlib import Path

import pytest
import torch

from learners.storage import checkpoints, inventory

NAMES = [
    "rank-{}.pt",
    "policy/zero_pp_rank_{}_mp_rank_00_optim_states.pt",
    "policy/zero_pp_rank_{}_mp_rank_00_model_states.pt",
]


def old(root: Path, ranks: int = 2) -> Path:
    """A checkpoint as it was written before there was a list of its files."""
    folder = root / "step-5"
    (folder / "policy").mkdir(parents=True)
    for name in NAMES:
        for rank in range(ranks):
            torch.save({"x": torch.zeros(64)}, folder / name.format(rank))
    (folder / "zero_to_fp32.py").write_text("print()")
    (folder / "checkpoint.json").write_text('{"step": 5, "version": 5, "world_size": 2, "lora": null}')
    return folder


def test_each_file_is_described_by_the_rank_that_wrote_it_and_by_no_other(tmp_path: Path) -> None:
    folder = old(tmp_path, ranks=11)
    mine = [inventory.files_of(folder, rank) for rank in range(11)]
    assert [path for rank in mine for path in rank if path.suffix == ".pt"] and sum(map(len, mine)) == 11 * 3 + 2
    assert {path.relative_to(folder).as_posix() for path in mine[1]} == {name.format(1) for name in NAMES}
    assert {path.name for path in mine[0]} >= {"zero_to_fp32.py", "rank-0.pt"}


@pytest.mark.parametrize("name", [name.format(1) for name in NAMES])
def test_a_truncated_or_missing_file_of_an_older_version_is_found(name: str, tmp_path: Path) -> None:
    folder = old(tmp_path)
    assert checkpoints.find(tmp_path) == checkpoints.Found(folder, ())
    file = folder / name
    file.write_bytes(file.read_bytes()[:-100])
    found = checkpoints.find(tmp_path)
    assert found.newest is None and found.damaged[0][0] == folder and f"{name} is not whole" in str(found)
    assert str(found).endswith("nothing is left to go on from")
    if "model_states" not in name:
        file.unlink()
        assert "not there" in str(checkpoints.find(tmp_path))
