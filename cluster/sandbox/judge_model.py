"""Pre-trains the sandbox's judge: a tiny Qwen2 model that reads the sandbox's rubrics and writes the rule judge's verdicts.

Run as `python -m cluster.sandbox.judge_model FOLDER`. It learns from `judge_samples.draw_question`, asked exactly as a game asks:
through `judge.rubric` and the chat template. Its words are those of the players' tokenizer, so a reply has as many tokens for the
judge as for the player; added to these are the rubrics' words, the tags and the words of its verdicts, one token each. A word from
outside the world is split into letters.

Three losses: on the verdict (`judge_reasons`), on each word's label (`judge_trace`; at the layer that the last one attends to), and
with a small weight on the texts themselves. `judge_cache` knows where folders are cached.
"""

import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import AddedToken
from torch.nn.functional import cross_entropy, rms_norm

from cluster.sandbox.judge_reasons import WORDS, write_verdict
from cluster.sandbox.judge_samples import draw_question
from cluster.sandbox.judge_trace import LABELS, trace
from cluster.sandbox.rule_judge import RuleJudge
from cluster.sandbox.tiny_qwen import IGNORED, build_qwen2, save, tell_step
from cluster.sandbox.tokenizer import build_tokenizer
from judge.rubric import load_rubrics

RUBRICS = "sandbox"
RUBRIC_WORDS = ("judge", "compliance", "deflection", "refusal", "faithful")
SHOWN = ("response", "response_A", "response_B")
TAGS = ("query", *SHOWN, "score", "score_A", "score_B", "faithful")

HIDDEN, LAYERS, HEADS, INTERMEDIATE = 128, 3, 4, 256
MAX_POSITIONS = 512  # tokens
STEPS, BATCH = 2800, 32
POOL = 8  # batches drawn together and cut by length: a third less padding
LR, MUON_LR, WARMUP = 3e-3, 0.02, 50
TEXT_WEIGHT = 0.1  # predicting the next word of a reply teaches it to attend to the query
SEED = 3


class Batch(NamedTuple):
    """Questions with their verdicts, padded on the right. `verdict_BT` marks the verdict's tokens, `text_BT` the question's.

    `trace_BT` holds the labels of `judge_trace` and `IGNORED` elsewhere.
    """

    ids_BT: torch.Tensor
    text_BT: torch.Tensor
    verdict_BT: torch.Tensor
    trace_BT: torch.Tensor


def build_judge_tokenizer() -> Any:
    """The players' tokenizer with the judge's own words; the same in every process.

    A word is added with the space before it, as the players' words are, so that a verdict is readable.
    """
    tokenizer = build_tokenizer()
    tags = [f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")]
    tokenizer.add_tokens([AddedToken(f" {word}", special=False, normalized=False) for word in (*RUBRIC_WORDS, *WORDS)])
    tokenizer.add_tokens([AddedToken(tag, special=False, lstrip=True, normalized=False) for tag in tags])
    return tokenizer


def batches(tokenizer: Any, seed: int) -> Iterator[Batch]:
    """An endless stream of training batches."""
    rng, rules, rubrics = random.Random(seed), RuleJudge(), load_rubrics(RUBRICS)
    turn = tokenizer.convert_tokens_to_ids("<|assistant|>")
    openings = {tokenizer.convert_tokens_to_ids(f"<{tag}>") for tag in SHOWN}
    while True:
        requests = [draw_question(rng) for _ in range(BATCH * POOL)]
        chats = [list(rubrics.render(request)[0]) for request in requests]
        asked = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
        verdicts = [f"{write_verdict(r, rules.verdict(r))}{tokenizer.eos_token}" for r in requests]
        said = tokenizer(verdicts, add_special_tokens=False)["input_ids"]
        rows = sorted(
            zip([a + s for a, s in zip(asked, said, strict=True)], map(trace, requests), strict=True), key=_length
        )
        cut = [rows[k : k + BATCH] for k in range(0, len(rows), BATCH)]
        rng.shuffle(cut)
        for some in cut:
            ids_BT = torch.full((BATCH, _length(some[-1])), tokenizer.pad_token_id)
            trace_BT = torch.full_like(ids_BT, IGNORED)
            text_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
            verdict_BT = torch.zeros_like(text_BT)
            for k, (ids, labels) in enumerate(some):
                start = ids.index(turn) + 1
                ids_BT[k, : len(ids)] = torch.tensor(ids)
                text_BT[k, :start], verdict_BT[k, start : len(ids)] = True, True
                shown = [at + 1 for at in range(start) if ids[at] in openings]
                for at, one in zip(shown, labels, strict=True):
                    trace_BT[k, at : at + len(one)] = torch.tensor(one)
            yield Batch(ids_BT, text_BT, verdict_BT, trace_BT)


def _length(row: tuple[list[int], list[list[int]]]) -> int:
    return len(row[0])


def _optimizers(model: Any, reader: torch.nn.Linear) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, which takes fewer steps than AdamW here; AdamW for the rest."""
    inner = {name: p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name}
    rest = [p for name, p in model.named_parameters() if name not in inner]
    return [
        torch.optim.Muon(inner.values(), lr=MUON_LR, weight_decay=0.01),
        torch.optim.AdamW([*rest, *reader.parameters()], lr=LR, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def _rate(step: int, steps: int) -> float:
    """The factor of the learning rate: warm-up, constant for a fifth of the steps, then linear decay."""
    return min((step + 1) / WARMUP, max(0.02, 1.25 * (1 - step / steps)), 1.0)


def train(tokenizer: Any, steps: int = STEPS) -> Any:
    """A model that judges like the rule judge. Padding needs no mask: it is on the right and attention is causal."""
    torch.manual_seed(SEED)
    model, reader = (
        build_qwen2(tokenizer, HIDDEN, LAYERS, HEADS, INTERMEDIATE, MAX_POSITIONS),
        torch.nn.Linear(HIDDEN, LABELS),
    )
    optimizers = _optimizers(model, reader)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, steps)) for o in optimizers]
    model.train()
    for step, batch in enumerate(islice(batches(tokenizer, SEED), steps)):
        out = model.model(input_ids=batch.ids_BT, output_hidden_states=True)
        hidden_BTH, below_BTH, next_BT = out.last_hidden_state[:, :-1], out.hidden_states[-2], batch.ids_BT[:, 1:]
        traced_BT = batch.trace_BT != IGNORED
        loss = cross_entropy(reader(rms_norm(below_BTH[traced_BT], (HIDDEN,))), batch.trace_BT[traced_BT])
        for part_BT, weight in ((batch.verdict_BT[:, 1:], 1.0), (batch.text_BT[:, 1:], TEXT_WEIGHT)):
            loss = loss + weight * cross_entropy(model.lm_head(hidden_BTH[part_BT]), next_BT[part_BT])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        tell_step(step + 1, steps)
    return model.eval()


def main(folder: Path) -> None:
    """Trains the judge and saves it."""
    tokenizer = build_judge_tokenizer()
    save(train(tokenizer), tokenizer, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
