"""Published model shapes with weights that mean nothing: what a size costs, without a download."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shape:
    """A Qwen2.5 decoder. Biases and norms are left out of the counts: they are a thousandth of it."""

    vocab: int
    width: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool

    @property
    def body(self) -> int:
        """Parameters that every token is multiplied with, the vocabulary's apart."""
        kv = self.width * self.kv_heads // self.heads
        return self.layers * (2 * self.width**2 + 2 * self.width * kv + 3 * self.width * self.mlp)

    @property
    def head(self) -> int:
        """Parameters of the projection on the vocabulary."""
        return self.vocab * self.width

    @property
    def parameters(self) -> int:
        return self.body + (1 if self.tied else 2) * self.head


SHAPES = {
    "tiny": Shape(4096, 64, 128, 2, 2, 1, True),
    "0.5B": Shape(151_936, 896, 4864, 24, 14, 2, True),
    "7B": Shape(152_064, 3584, 18_944, 28, 28, 4, False),
}


def make_model(folder: Path, shape: Shape, max_tokens: int = 2048) -> None:
    """A folder of that shape in bfloat16, its weights one random block over and over: drawing each would cost minutes."""
    import torch
    from transformers import AutoConfig, Qwen2ForCausalLM

    from cluster.inputs.random_model import make_random_model

    make_random_model(folder, ["a few words to train a tokenizer on"] * 4, seed=0, max_tokens=max_tokens)
    config = AutoConfig.from_pretrained(folder)
    config.update(
        {
            "vocab_size": shape.vocab,
            "hidden_size": shape.width,
            "intermediate_size": shape.mlp,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "tie_word_embeddings": shape.tied,
            "layer_types": ["full_attention"] * shape.layers,
            "dtype": "bfloat16",
        }
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.to_empty(device="cpu")
    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02
    with torch.no_grad():
        for parameter in model.parameters():
            whole = block.repeat(parameter.numel() // len(block) + 1)[: parameter.numel()]
            parameter.copy_(whole.view(parameter.shape))
    model.tie_weights()
    model.save_pretrained(folder)
