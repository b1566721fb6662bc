"""A random-weight model of the Qwen2.5 architecture, made locally, for trying real input without a hub.

Its byte-level BPE tokenizer is trained on the texts it is given, and its chat template is the plain ChatML turn structure.
Nothing sensible comes out of it; every shape, format and state does.
"""

from collections.abc import Iterable
from pathlib import Path

from protocol.files import make_folder

VOCABULARY = 4096  # tokens; enough for a few hundred short seeds and the prompts
LAYERS, WIDTH, HEADS, KV_HEADS, MLP = 12, 320, 5, 1, 1024  # with the tied vocabulary: about 16 M parameters

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_random_model(folder: Path, texts: Iterable[str], seed: int, max_tokens: int = 2048) -> int:
    """Writes weights, tokenizer and chat template to `folder`, whole or not at all.

    Args:
        folder: must not exist.
        texts: what the tokenizer is trained on.
        seed: of the weights.
        max_tokens: max_position_embeddings.

    Returns:
        The number of parameters.

    Raises:
        FileExistsError: `folder` exists.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    if folder.exists():
        raise FileExistsError(folder)
    end, begin, pad = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[pad, begin, end], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, pad_token=pad)
    tokenizer.chat_template = CHAT_TEMPLATE

    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=MLP,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            max_position_embeddings=max_tokens,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with make_folder(folder) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
    return sum(p.numel() for p in model.parameters())
