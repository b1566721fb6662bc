"""Demonstrations that a learner is shown, in its loss or in a warm start: reading them, and which of them a step sees.

Invariants: a file is read whole or refused, naming the line; the examples of a step follow from (run seed, step) alone, and every
example is seen once before any is seen twice.

It does not know the loss (`engine` adds weight * mean token NLL), nor how an answer becomes tokens (`chat`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import structlog

from learners.batch.chat import ChatTokenizer
from learners.batch.micro_batches import Ids, Sequences, assign_micro_batches, collate, make_dummy
from learners.spec import LearnerSpec
from protocol.errors import UserError
from protocol.jsonl import is_unicode, parse_object, read_lines, shorten
from protocol.randomness import derive_seed
from protocol.recipe import LearnerConfig
from protocol.texts import has_text

log = structlog.get_logger(__name__)

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
        lines = read_lines(Path(path).expanduser())
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {path} cannot be read ({error}); give a UTF-8 JSONL file") from None
    examples = []
    for number, line in lines:
        value = parse_object(line)
        if isinstance(value, str):
            raise UserError(f"{where}: {path}:{number}: {value}; write one object a line")
        if set(value) != _FIELDS:
            found = ", ".join(shorten(name).strip('"') for name in sorted(value)) or "(none)"
            raise UserError(f'{where}: {path}:{number}: fields {found}; a line is {{"prompt": text, "response": text}}')
        for name in sorted(_FIELDS):
            if not isinstance(value[name], str) or not has_text(value[name]):
                raise UserError(f"{where}: {path}:{number}: {name} is no text or empty; write some, or drop the line")
            if not is_unicode(value[name]):
                raise UserError(
                    f"{where}: {path}:{number}: {name} is no Unicode (a lone surrogate); remove it, or drop the line"
                )
        examples.append(Example(value["prompt"], value["response"], number))
    if not examples:
        raise UserError(f"{where}: {path} has no examples; add some, or set {where} to null")
    return examples


class SftMix:
    """A learner's demonstrations, tokenized.

    Args:
        rows: (prompt, answer) token ids.
        config: the learner's; `sft.batch` examples a step are padded into forwards of at most `max_tokens`.
        seed: the run's.
        use: "sft" or "warm": each goes through the examples in an order of its own.
    """

    def __init__(
        self, rows: Sequence[tuple[Ids, Ids]], config: LearnerConfig, seed: int, use: Literal["sft", "warm"] = "sft"
    ) -> None:
        self._rows, self._seed, self._use = rows, seed, use
        self._batch, self._max_tokens = config.sft.batch, config.max_tokens

    def draw(self, step: int) -> list[int]:
        """Which examples a step sees: the next `batch` places of an endless row of shuffles."""
        n = len(self._rows)
        places = range(step * self._batch, (step + 1) * self._batch)
        orders = {
            epoch: np.random.default_rng(derive_seed(self._seed, self._use, epoch)).permutation(n)
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


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """What a learner is shown: `mix` beside what it learns from games, `warm` before them. None: nothing."""

    mix: SftMix | None = None
    warm: SftMix | None = None


def load_demonstrations(spec: LearnerSpec) -> Demonstrations:
    """The demonstrations of `config.sft`: those of its file, or for a warm start without one those that the spec carries.

    Raises:
        UserError: see `read_examples` and `ChatTokenizer`; or an example is longer than `config.max_tokens`.
    """
    config, sft = spec.config, spec.config.sft
    if sft.path is None and not spec.warm:
        return Demonstrations()
    tokenize = ChatTokenizer(spec.model_path, spec.template_arguments)
    if sft.path is not None:
        key = f"{spec.section}.sft.path"
        rows = [
            _fit(tokenize([{"role": "user", "content": e.prompt}], e.response), spec, f"{key}: {sft.path}:{e.line}")
            for e in read_examples(sft.path, key)
        ]
    else:
        # A seed's characters never become control tokens: one that spells some is left out.
        shown = [d for d in spec.warm if not tokenize.spells_control(d.seed)]
        if len(shown) < len(spec.warm):
            log.warning(
                "seeds left out of the warm start", why="they spell special tokens", n=len(spec.warm) - len(shown)
            )
        if not shown:
            raise UserError(
                f"{spec.section}.sft.warm_steps: every seed spells a special token of {spec.model_path}, so none can be an "
                "example; set it to 0"
            )
        rows = [_fit(tokenize(d.messages, d.answer), spec, f"{spec.section}.sft.warm_steps: an example") for d in shown]
    return Demonstrations(
        SftMix(rows, config, spec.run_seed) if sft.path is not None and sft.weight else None,
        SftMix(rows, config, spec.run_seed, "warm") if sft.warm_steps else None,
    )


def _fit(row: tuple[Ids, Ids], spec: LearnerSpec, where: str) -> tuple[Ids, Ids]:
    """The example, if a forward can hold it."""
    tokens, limit = len(row[0]) + len(row[1]), spec.config.max_tokens
    if tokens > limit:
        raise UserError(
            f"{where}: {tokens} tokens exceed {spec.section}.max_tokens {limit}; shorten the example or raise the limit"
        )
    return row
