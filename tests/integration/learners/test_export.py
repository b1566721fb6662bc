"""Exported folders against the libraries that people load them with: transformers, and peft for adapters."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from learners.storage.export import write_adapter, write_folder
from learners.zero3.lora import name_for_peft
from protocol.packed import layout, total_bytes
from protocol.recipe import LoraConfig
from tests.integration.tiny_qwen import END, EOS_ID, PAD, TEMPLATE, pack_model, tiny_model

CHAT = [{"role": "user", "content": "w1- w2-"}]
LORA = LoraConfig(rank=4, alpha=6.0, targets=("q_proj", "down_proj"))


@pytest.fixture
def source(model: str, tmp_path: Path) -> Path:
    """A folder as older versions of transformers wrote them: the template in the tokenizer's settings, no generation config."""
    folder = tmp_path / "base"
    shutil.copytree(model, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": TEMPLATE}))
    (folder / "chat_template.jinja").unlink()
    (folder / "generation_config.json").unlink()
    return folder


def export(source: Path, seed: int = 2) -> Path:
    target = source.parent / "export"
    manifest, packed = pack_model(tiny_model(seed), 1)
    write_folder(source, target, manifest.tensors, packed)
    return target


def test_a_model_loads_with_its_tokenizer_and_its_template(source: Path) -> None:
    folder = export(source)
    loaded, trained = AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), tiny_model(2)
    assert all(torch.equal(p, trained.get_parameter(name)) for name, p in loaded.named_parameters())
    tokenizer, base = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(source)
    ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert ids == base.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False) and len(ids) > 3
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE
    assert not (folder / "README.md").exists(), "what it is worth is not known yet"


def test_named_templates_are_kept(source: Path) -> None:
    (source / "chat_template.jinja").write_text(TEMPLATE)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tools.jinja").write_text("tools")
    assert AutoTokenizer.from_pretrained(export(source)).chat_template == {"default": TEMPLATE, "tools": "tools"}


def test_generation_ends_where_it_did_in_the_games(source: Path) -> None:
    folder = export(source)
    config, tokenizer = GenerationConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (config.eos_token_id, config.pad_token_id) == (EOS_ID, tokenizer.convert_tokens_to_ids(PAD))

    # What the base lists stands beside the tokenizer's end; the rest of its file is as it was.
    (source / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [300, EOS_ID], "temperature": 0.7, "do_sample": True})
    )
    config = GenerationConfig.from_pretrained(export(source))
    assert (set(config.eos_token_id), config.temperature) == ({EOS_ID, 300}, 0.7)
    assert config.pad_token_id == tokenizer.convert_tokens_to_ids(PAD)


def test_generate_stops_at_the_end_of_the_turn(source: Path) -> None:
    folder = export(source)
    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():  # a model that says one word: the end
        loaded.lm_head.weight = torch.nn.Parameter(torch.zeros_like(loaded.lm_head.weight))
        loaded.lm_head.bias = torch.nn.Parameter(
            torch.zeros(loaded.config.vocab_size).index_fill(0, torch.tensor(EOS_ID), 1.0)
        )
    prompt = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = loaded.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.convert_ids_to_tokens(said.tolist()) == [END]


def test_what_was_said_of_the_base_is_left_behind(source: Path) -> None:
    for name in ("promotion.json", "adapter_config.json", "trainer_state.json", "model.safetensors.index.json"):
        (source / name).write_text("{}")
    (source / "README.md").write_text("# The base")
    (source / "LICENSE").write_text("as you like")
    names = {path.name for path in export(source).iterdir()}
    assert names == {
        "LICENSE",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_an_adapter_loads_with_peft_and_is_what_it_was_trained_as(source: Path) -> None:
    import peft

    base = tiny_model(1)
    torch.manual_seed(0)
    factors = {
        f"{path}.policy.{letter}.weight": torch.randn(shape) / 8
        for path, linear in base.named_modules()
        if path.rpartition(".")[2] in LORA.targets
        for letter, shape in (("a", (LORA.rank, linear.in_features)), ("b", (linear.out_features, LORA.rank)))
    }
    assert len(factors) == 8
    specs = layout([(name_for_peft(name), tuple(value.shape)) for name, value in factors.items()], "float32")
    packed = np.empty(total_bytes(specs), np.uint8)
    for spec, value in zip(specs, factors.values(), strict=True):
        packed[spec.offset : spec.end] = value.contiguous().view(torch.uint8).reshape(-1).numpy()
    folder = source.parent / "adapter"
    write_adapter(source, folder, LORA, specs, packed)

    loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), folder)
    merged = loaded.merge_and_unload()
    moved = 0
    for name, weight in base.named_parameters():
        path = name.removesuffix(".weight")
        change = 0.0
        if f"{path}.policy.a.weight" in factors:
            moved += 1
            change = LORA.alpha / LORA.rank * factors[f"{path}.policy.b.weight"] @ factors[f"{path}.policy.a.weight"]
        torch.testing.assert_close(merged.get_parameter(name), weight + change)
    assert moved == 4
    assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE
    assert peft.PeftConfig.from_pretrained(folder).base_model_name_or_path == "base"
    assert str(source.parent) not in (folder / "adapter_config.json").read_text()
