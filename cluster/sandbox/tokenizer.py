"""The sandbox's tokenizer: a byte-level BPE of Qwen2's kind in which each word of the made-up world is one token.

It is a real `Qwen2Tokenizer`, because `AutoTokenizer` accepts no other class beside a Qwen2 model: it would rebuild the splitting
rules of any other. As in Qwen's own, a word's token includes the space before it, so a completion's text begins with a space. A
word at the start of a text, without a space, would be split into letters; the chat template rules that out. The tags of the
attacker's format are ordinary tokens, so that `skip_special_tokens=True` keeps them; the turn markers are special, so that it drops
them. It knows nothing of what the words mean.
"""

from typing import Any

from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer

from cluster.sandbox.samples import Sample, thought
from cluster.sandbox.world import STYLES, vocabulary
from protocol.prompts import attacker_messages
from protocol.roles import CATEGORIES
from protocol.types import Seed

SPACE = "\u0120"  # how byte-level BPE writes the space before a word
PAD, END = "<|pad|>", "<|end|>"
TURNS = ("<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<think>", "</think>", "<prompt>", "</prompt>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def words() -> list[str]:
    """The words of the world, of the sandbox's instructions and of the attacker's reasoning, sorted."""
    asked = [m["content"] for c in CATEGORIES for m in attacker_messages(Seed("", "", c), "sandbox", "think_prompt")]
    texts = [*asked, *(thought(style) for style in STYLES)]
    return sorted({*vocabulary(), *(word for text in texts for word in text.split())})


def build_tokenizer() -> Any:
    """The tokenizer, the same in every process.

    Every merge extends a word's beginning by one letter, so merging can only run along a known word, from its space on.
    """
    vocab = {letter: place for place, letter in enumerate(sorted(ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in words():
        start = SPACE
        for letter in word:
            if start + letter not in vocab:
                vocab[start + letter] = len(vocab)
                merges.append((start, letter))
            start += letter
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        unk_token=None,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(TURNS),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(tag, special=False, lstrip=True, normalized=False) for tag in TAGS])
    return tokenizer


def encode(tokenizer: Any, sample: Sample) -> tuple[list[int], int]:
    """Token ids of a whole chat through the chat template, and how many of them are the prompt's (not learned)."""
    prompt = tokenizer.apply_chat_template(list(sample.messages), add_generation_prompt=True, return_dict=False)
    completion = tokenizer(f" {sample.completion}{tokenizer.eos_token}", add_special_tokens=False)["input_ids"]
    return [*prompt, *completion], len(prompt)
