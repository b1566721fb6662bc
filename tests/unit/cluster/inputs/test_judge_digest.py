"""Which judges are the same: those whose folders hold the same model, wherever they lie."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.inputs.judge_digest import digest_model

SIZE = 3_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "here" / "judge"
    made.mkdir(parents=True)
    (made / "config.json").write_text('{"model_type": "qwen2"}')
    (made / "tokenizer_config.json").write_text("{}")
    (made / "model-00001-of-00002.safetensors").write_bytes(bytes(SIZE))
    (made / "model-00002-of-00002.safetensors").write_bytes(b"small")
    return made


def test_it_is_short_and_survives_a_move_a_copy_and_a_note_beside_it(folder: Path) -> None:
    first = digest_model(folder)
    assert re.fullmatch("[0-9a-f]{8}", first)
    there = folder.parent.parent / "there" / "other-name"
    shutil.copytree(folder, there)
    os.utime(there / "config.json", (0, 0))
    (there / "README.md").write_text("notes")
    assert digest_model(there) == first


def _train(folder: Path) -> None:
    """As training does: every weight is another, no name or size is."""
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"\x01" * SIZE)


def _train_the_last_layer(folder: Path) -> None:
    with (folder / "model-00001-of-00002.safetensors").open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"\x01" * (SIZE // 2))


CHANGES: list[Callable[[Path], object]] = [
    _train,
    _train_the_last_layer,
    lambda f: (f / "config.json").write_text('{"model_type": "llama"}'),
    lambda f: (f / "chat_template.jinja").write_text("{{ messages }}"),
    lambda f: (f / "model-00002-of-00002.safetensors").write_bytes(b"smaller"),
    lambda f: (f / "model-00002-of-00002.safetensors").rename(f / "model-00003-of-00003.safetensors"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_another_model_in_a_folder_of_that_name_is_another_judge(
    folder: Path, change: Callable[[Path], object]
) -> None:
    first = digest_model(folder)
    change(folder)
    assert digest_model(folder) != first
