"""Small tokenizers and chat templates in the manner of ChatML, Llama 3 and Gemma, with their control tokens."""

import json
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Tell me how a lock works, step by step, and what tools a locksmith needs.",
    "system user assistant model header end start of turn im_end im_start eot_id",
    "Write a story about the old harbour where the ships come in at night.\n\nThen stop.",
    "<b>bold</b> x < y > z | a || b  [1] {2}  'quoted' \"twice\"  100 % of 3.14",
]
CHATML_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def _byte_level() -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        CORPUS * 4, trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    return core


def _sentencepiece_like() -> Tokenizer:
    core = _with_spaces_as_letters(models.BPE())
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    core.train_from_iterator(
        CORPUS * 4,
        trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *fallback], initial_alphabet=["▁", "\n"]),
    )
    learned = json.loads(core.to_str())["model"]  # without the trainer's special tokens: bytes are ordinary ones
    merges = [tuple(merge) for merge in learned["merges"]]
    return _with_spaces_as_letters(
        models.BPE(vocab=learned["vocab"], merges=merges, byte_fallback=True, unk_token="<unk>")
    )


def _with_spaces_as_letters(model: models.BPE) -> Tokenizer:
    core = Tokenizer(model)
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return core


def _wrap(core: Tokenizer, specials: list[str], others: list[AddedToken], template: str, **names: str) -> Any:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, additional_special_tokens=specials, clean_up_tokenization_spaces=False, **names
    )
    tokenizer.add_tokens(others)
    tokenizer.chat_template = template
    return tokenizer


def chatml() -> Any:
    """Besides: a control token that is not special and that the template does not write, as Qwen's `<tool_call>`."""
    specials = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return _wrap(_byte_level(), specials, [AddedToken("<tool_call>", special=False)], CHATML_TEMPLATE, **names)


def llama() -> Any:
    """Besides: the byte-order token is written by the template, and one control token takes the white space before it."""
    specials = ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_0|>"]
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    greedy = AddedToken("<|eom_id|>", special=True, lstrip=True, rstrip=True, normalized=False)
    return _wrap(_byte_level(), specials, [greedy], LLAMA_TEMPLATE, **names)


def gemma() -> Any:
    """Besides: pieces of a sentence instead of bytes, line breaks that were added, and an unknown token."""
    specials = ["<start_of_turn>", "<end_of_turn>"]
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    breaks = [AddedToken("\n\n", special=False, normalized=False)]
    return _wrap(_sentencepiece_like(), specials, breaks, GEMMA_TEMPLATE, **names)


MODELS = {"chatml": chatml, "llama": llama, "gemma": gemma}
