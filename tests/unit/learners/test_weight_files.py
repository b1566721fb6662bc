"""Weights that broke off on the way, in the forms in which that happens; and experts that cannot be pushed."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from learners.storage.models import check_model_folder
from learners.storage.weight_files import check_weights
from protocol.errors import UserError


def shard(folder: Path, number: int, of: int, *names: str) -> str:
    file = f"model-{number:05}-of-{of:05}.safetensors"
    save_file({name: np.ones((3, 4), np.float32) for name in names}, folder / file)
    return file


def index(folder: Path, **placed: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards and their index."""
    index(tmp_path, a=shard(tmp_path, 1, 2, "a"), b=shard(tmp_path, 2, 2, "b"))
    return tmp_path


def test_whole_weights_pass_and_tell_their_shapes(folder: Path) -> None:
    assert check_weights(folder, "k") == {"a": (3, 4), "b": (3, 4)}


def cut(name: str, keep: Callable[[int], int]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_bytes(file.read_bytes()[: keep(file.stat().st_size)])

    return change


SECOND = "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / SECOND).unlink(), rf"names 2 files, of which 1 are not there: {SECOND}; copy or download them"),
        (cut(SECOND, lambda n: n - 1), rf"{SECOND} has \d+ bytes and should have \d+, by its header"),
        (cut(SECOND, lambda n: n // 2), SECOND),
        (cut(SECOND, lambda n: 12), rf"{SECOND} ends within its header, at 12 bytes"),
        (cut(SECOND, lambda n: 0), rf"{SECOND} ends within its header, at 0 bytes"),
        (lambda f: (f / SECOND).write_bytes(b"\x02" + bytes(7) + b"{]"), f"{SECOND} is no safetensors file"),
        (lambda f: (f / SECOND).write_bytes(b"\x02" + bytes(7) + b"[]"), f"{SECOND} is no safetensors file"),
        (lambda f: index(f, a=SECOND), "names 1 tensors that their files do not hold: a; copy or download index and"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "is no index of shards"),
        (lambda f: (f / "model.safetensors.index.json").write_text("[]"), "is no index of shards"),
        (
            lambda f: (f / "model.safetensors.index.json").unlink(),
            "holds model-00001-of-00002.safetensors and no index",
        ),
    ],
)
def test_what_broke_off_is_one_line(folder: Path, change: Callable[[Path], Any], said: str) -> None:
    change(folder)
    with pytest.raises(UserError, match=rf"^models\.attacker\.path: .*{said}") as refused:
        check_weights(folder, "models.attacker.path")
    assert "\n" not in str(refused.value)


def test_pickled_weights_that_broke_off_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", "x" * 100)
    assert check_weights(tmp_path, "k") == {}
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"pytorch_model\.bin is not whole, at \d+ bytes; copy or download it again"):
        check_weights(tmp_path, "k")
    file.write_bytes(b"\x80\x02}q\x00.")  # as torch wrote before 1.6
    check_weights(tmp_path, "k")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mixtral", "num_local_experts": 8},
        {"model_type": "qwen3_moe", "num_experts": 128},
        {"model_type": "deepseek_v3", "n_routed_experts": 64},
        {"model_type": "some_vision_model", "text_config": {"num_experts": 16}},
    ],
)
def test_experts_cannot_be_pushed_and_may_play_frozen(tmp_path: Path, config: dict[str, Any]) -> None:
    for name in ("tokenizer.json", "chat_template.jinja"):
        (tmp_path / name).write_text("{}")
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_model_folder(str(tmp_path), "models.attacker.path")
    with pytest.raises(
        UserError, match=r"is a mixture of experts \(\w+ \d+ in its config\.json\).* give a dense model, or"
    ):
        check_model_folder(str(tmp_path), "models.attacker.path", trained=True)
