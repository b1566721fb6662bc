"""A tiny random Qwen2 folder for tests that need the real vLLM: weights, a tokenizer of whole words and a chat template."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from protocol.packed import checksum, layout, total_bytes
from protocol.roles import Player
from protocol.types import WeightManifest

END, START, PAD = "<|im_end|>", "<|im_start|>", "<|pad|>"
TAGS = ["<think>", "</think>", "<prompt>", "</prompt>"]
WORDS = ["system", "user", "assistant", *(f"w{k}-" for k in range(189))]  # "-": no word is the beginning of another
EOS_ID = 256  # the first token after the bytes
VOCABULARY = EOS_ID + 3 + len(TAGS) + len(WORDS)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


def save_tokenizer(folder: Path) -> int:
    """Writes the tokenizer, gives its size.

    A `Qwen2Tokenizer` of single bytes (AutoTokenizer takes no other class beside a Qwen2 model) with each word added whole.
    """
    letters = {letter: k for k, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(
        vocab=letters, merges=[], unk_token=None, eos_token=END, pad_token=PAD, additional_special_tokens=[START]
    )
    tokenizer.add_tokens([AddedToken(word, lstrip=True, normalized=False, special=False) for word in [*TAGS, *WORDS]])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def tiny_model(seed: int, *, tied: bool = True) -> Qwen2ForCausalLM:
    """Random float32 weights from `seed`; 2 layers, hidden 64, 2 heads of 32."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=EOS_ID + 1,
        initializer_range=0.2,  # far from uniform, so that different weights say different words
        dtype="float32",
    )
    return Qwen2ForCausalLM(config).float().eval()


def save_tiny(folder: Path, seed: int, *, tied: bool = True) -> Qwen2ForCausalLM:
    """Writes a whole model folder and gives the model that was written."""
    model = tiny_model(seed, tied=tied)
    model.save_pretrained(folder)
    assert save_tokenizer(folder) == VOCABULARY
    return model


def pack_model(model: Qwen2ForCausalLM, version: int, player: Player = "attacker") -> tuple[WeightManifest, np.ndarray]:
    """What a push of `model` carries: Hugging Face names in order, tied tensors once, all of one dtype."""
    named = dict(model.named_parameters())
    (dtype,) = {str(parameter.dtype).removeprefix("torch.") for parameter in named.values()}
    specs = layout([(name, tuple(parameter.shape)) for name, parameter in named.items()], dtype)
    packed = np.empty(total_bytes(specs), np.uint8)
    for spec in specs:
        raw = named[spec.name].detach().contiguous().view(torch.uint8).reshape(-1).numpy()
        packed[spec.offset : spec.end] = raw
    return WeightManifest(player, version, specs, packed.nbytes, checksum(packed)), packed
