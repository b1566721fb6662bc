"""A GGUF file of a tiny random Llama with a byte-level tokenizer, written with the `gguf` package."""

from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WIDTH, LAYERS, HEADS, MLP = 32, 2, 4, 64
BEGIN, END, TEXT_END = 0, 1, 2


def byte_tokens() -> list[str]:
    """The 256 bytes as byte-level tokenizers spell them."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def write_gguf(
    path: Path, architecture: str = "llama", template: str | None = TEMPLATE, **more: int | str | list[str]
) -> None:
    """Writes the file.

    Args:
        more: further numbers, texts and lists of texts of its metadata; dots are written as `__`.
    """
    from gguf import GGUFWriter, TokenType

    writer, rng = GGUFWriter(str(path), architecture), np.random.default_rng(0)
    tokens = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", *byte_tokens(), "ab"]
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * 257)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    if template is not None:
        writer.add_chat_template(template)
    for key, value in more.items():
        named = key.replace("__", ".")
        if isinstance(value, int):
            writer.add_uint32(named, value)
        elif isinstance(value, str):
            writer.add_string(named, value)
        else:
            writer.add_array(named, value)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(tokens), WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for k in range(LAYERS):
        shapes |= {f"blk.{k}.{name}.weight": (WIDTH, WIDTH) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"blk.{k}.{name}.weight": (MLP, WIDTH) for name in ("ffn_gate", "ffn_up")}
        shapes |= {f"blk.{k}.ffn_down.weight": (WIDTH, MLP)}
        shapes |= {f"blk.{k}.{name}.weight": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    for name, shape in shapes.items():
        values: Any = rng.normal(1.0 if len(shape) == 1 else 0.0, 0.2, shape).astype(np.float32)
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
