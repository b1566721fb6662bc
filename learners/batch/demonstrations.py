"""Demonstrations that are mixed into a learner's loss: reading, tokenizing, and which of them a step sees.

Invariants: a file is read whole or refused, naming the line; an answer's tokens are those that generation would have to sample,
end of turn included; the examples of a step follow from (run seed, step) alone, and every example is seen once before any is
seen twice.

It does not know the loss: `engine` adds weight * mean token NLL.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learners.batch.micro_batches import Ids, Sequences, assign_micro_batches, collate, make_dummy
from protocol.errors import UserError
from protocol.randomness import derive_seed
from protocol.recipe import LearnerConfig

_FIELDS = {"prompt", "response"}


@dataclass(frozen=True, slots=True)
class Example:
    """One demonstration and the line of the file that it stands on."""

    prompt: str
    response: str
    line: int


@dataclass(frozen=True, slots=True)
class SftBatch:
    """One rank's micro-batches of a step's examples, and the answers' tokens over all ranks."""

    micro: tuple[Sequences, ...]
    answer_tokens: int


def read_examples(path: str, where: str) -> list[Example]:
    """The examples of a JSONL file of `{"prompt": text, "response": text}`; blank lines are skipped.

    Args:
        path: the file.
        where: the recipe key that named it, for the message.

    Raises:
        UserError: the file is missing, empty, no UTF-8, or a line is not such an object.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: {path} cannot be read ({error}); give a UTF-8 JSONL file") from None
    examples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: {path}:{number}: not JSON ({error}); write one object a line") from None
        fields = set(value) if isinstance(value, dict) else None
        if fields != _FIELDS:
            found = type(value).__name__ if fields is None else f"fields {', '.join(sorted(fields)) or '(none)'}"
            raise UserError(f'{where}: {path}:{number}: {found}; a line is {{"prompt": text, "response": text}}')
        for name in sorted(_FIELDS):
            if not isinstance(value[name], str) or not value[name].strip():
                raise UserError(f"{where}: {path}:{number}: {name} is no text or empty; write some, or drop the line")
        examples.append(Example(value["prompt"], value["response"], number))
    if not examples:
        raise UserError(f"{where}: {path} has no examples; add some, or set {where} to null")
    return examples


def _stop_ids(tokenizer: Any, folder: Path) -> set[int]:
    """The tokens that end generation: the tokenizer's, and those that the model folder names beside it."""
    stops = {tokenizer.eos_token_id}
    file = folder / "generation_config.json"
    named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    return (stops | set(named if isinstance(named, list) else [named])) - {None}


class ChatTokenizer:
    """Prompts and answers as a model folder's chat template writes them."""

    def __init__(self, model_path: str) -> None:
        from transformers import AutoTokenizer

        self._path = model_path
        self._tokenizer = AutoTokenizer.from_pretrained(model_path)
        self._stops = _stop_ids(self._tokenizer, Path(model_path))

    def __call__(self, prompt: str, response: str) -> tuple[Ids, Ids]:
        """The prompt's tokens, as one user turn, up to where the assistant begins; and the answer's, up to the end of its turn.

        Raises:
            UserError: the template writes an answer otherwise than after its own generation prompt, or does not end it.
        """
        asked = [{"role": "user", "content": prompt}]
        template = self._tokenizer.apply_chat_template
        before = template(asked, add_generation_prompt=True, tokenize=False)
        whole = template([*asked, {"role": "assistant", "content": response}], tokenize=False)
        # Cut as text and tokenized apart: a sampler never has a token that reaches back into the prompt.
        answer = self._tokenizer(whole.removeprefix(before), add_special_tokens=False)["input_ids"]
        ends = [k for k, token in enumerate(answer) if token in self._stops]
        if not whole.startswith(before) or not ends:
            raise UserError(
                f"{self._path}: its chat template does not write an answer as generation prompt, text, end of turn, "
                "so demonstrations cannot be learned; set sft.path to null, or give a template that does"
            )
        ids = template(asked, add_generation_prompt=True, tokenize=True, return_dict=False)
        # Generation ends at the first token that ends it, whatever the template writes after.
        return np.asarray(ids, np.int64), np.asarray(answer[: ends[0] + 1], np.int64)


class SftMix:
    """A learner's demonstrations, tokenized.

    Args:
        rows: (prompt, answer) token ids.
        config: the learner's; `sft.batch` examples a step are padded into forwards of at most `max_tokens`.
        seed: the run's.
    """

    def __init__(self, rows: Sequence[tuple[Ids, Ids]], config: LearnerConfig, seed: int) -> None:
        self._rows, self._seed = rows, seed
        self._batch, self._max_tokens = config.sft.batch, config.max_tokens

    def draw(self, step: int) -> list[int]:
        """Which examples a step sees: the next `batch` places of an endless row of shuffles."""
        n = len(self._rows)
        places = range(step * self._batch, (step + 1) * self._batch)
        orders = {
            epoch: np.random.default_rng(derive_seed(self._seed, "sft", epoch)).permutation(n)
            for epoch in {place // n for place in places}
        }
        return [int(orders[place // n][place % n]) for place in places]

    def batch(self, step: int, rank: int, ranks: int) -> SftBatch:
        """This rank's share of a step's examples."""
        rows = [self._rows[k] for k in self.draw(step)]
        widths = [len(prompt) + len(answer) for prompt, answer in rows]
        mine = assign_micro_batches(widths, 1, self._max_tokens, ranks)[rank]
        micro = tuple(collate([rows[k] for k in indices]) if indices else make_dummy(1) for indices in mine)
        return SftBatch(micro, sum(len(answer) for _, answer in rows))


def load_mix(model_path: str, config: LearnerConfig, seed: int, where: str) -> SftMix | None:
    """The demonstrations that `config.sft` names, or None if it names none.

    Raises:
        UserError: see `read_examples` and `ChatTokenizer`; or an example is longer than `config.max_tokens`.
    """
    if config.sft.path is None:
        return None
    path_key = f"{where}.sft.path"
    tokenize = ChatTokenizer(model_path)
    rows = []
    for example in read_examples(config.sft.path, path_key):
        prompt, answer = tokenize(example.prompt, example.response)
        tokens = len(prompt) + len(answer)
        if tokens > config.max_tokens:
            raise UserError(
                f"{path_key}: {config.sft.path}:{example.line}: {tokens} tokens exceed {where}.max_tokens "
                f"{config.max_tokens}; shorten the example or raise the limit"
            )
        rows.append((prompt, answer))
    return SftMix(rows, config, seed)
