"""A tiny random Qwen2 folder for tests that need the real vLLM: weights, a word-level tokenizer and a chat template."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SPECIAL = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<think>", "</think>", "<prompt>", "</prompt>"]
WORDS = [f"w{k}" for k in range(192)]
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)


def save_tokenizer(folder: Path) -> None:
    """A word-level tokenizer: one token a word, the tags are ordinary words, `<|im_end|>` ends a turn."""
    words = [*SPECIAL, *TAGS, "system", "user", "assistant", *WORDS]
    model = Tokenizer(WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    model.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def tiny_model(seed: int, *, tied: bool = True) -> Qwen2ForCausalLM:
    """Random float32 weights from `seed`; 2 layers, hidden 64, 2 heads of 32."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(SPECIAL) + len(TAGS) + 3 + len(WORDS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=3,
        pad_token_id=0,
        initializer_range=0.2,  # far from uniform, so that different weights say different words
        dtype="float32",
    )
    return Qwen2ForCausalLM(config).float().eval()


def save_tiny(folder: Path, seed: int, *, tied: bool = True) -> Qwen2ForCausalLM:
    """Writes a whole model folder and gives the model that was written."""
    model = tiny_model(seed, tied=tied)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model
