"""The sandbox's models: tiny Qwen2 models over a tokenizer's words, built untrained, and saved. It does not train them.

What trains them says by `tell_step` how far it is, for `store` to read.
"""

import sys
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

IGNORED = -100  # a label that the loss leaves out
TOLD_EVERY = 10  # steps


def build_qwen2(tokenizer: Any, hidden: int, layers: int, heads: int, intermediate: int, max_positions: int) -> Any:
    """A randomly initialised float32 `Qwen2ForCausalLM`; seed torch before.

    Args:
        hidden, intermediate: widths; `hidden / heads` is at least 32, the smallest head that vLLM's CPU attention takes.
        max_positions: tokens.
    """
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return Qwen2ForCausalLM(config).float()


def tell_step(done: int, steps: int) -> None:
    """Writes to standard output how many steps are done, now and then."""
    if done % TOLD_EVERY == 0 or done == steps:
        sys.stdout.write(f"step {done} of {steps}\n")
        sys.stdout.flush()


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes weights, config, tokenizer and chat template, loadable by `from_pretrained` and by vLLM."""
    model.generation_config = GenerationConfig(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
