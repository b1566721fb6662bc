"""Pre-trains the sandbox's judge: a tiny Qwen2 model that reads the sandbox's rubrics and writes the rule judge's verdicts.

Run as `python -m cluster.sandbox.judge_model FOLDER`. It learns from `judge_samples.question`, asked exactly as a game asks:
through `judge.rubric` and the chat template. Its words are those of the players' tokenizer, so a reply costs the judge as many
tokens as it cost the player; to these come the rubrics' words, the tags and the scores, one token each. A word from outside the
world falls into letters. It knows nothing of where folders are cached (`judge_cache`).
"""

import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch.nn.functional import cross_entropy
from transformers import Qwen2Config, Qwen2ForCausalLM

from cluster.sandbox.judge_samples import question
from cluster.sandbox.pretrain import save
from cluster.sandbox.tokenizer import build_tokenizer
from judge.rubric import load_rubrics
from judge.rules import RuleJudge
from protocol.types import Verdict

RUBRICS = "sandbox"
HALVES = tuple(f"{half / 2:g}" for half in range(21))  # the rule judge's scores are multiples of 0.5
BLOCKS = ("query", "response", "response_A", "response_B", "score", "score_A", "score_B", "faithful")
RUBRIC_WORDS = ("judge", "compliance", "deflection", "refusal", "faithful", "benign", "harmful", "true", "false")

HIDDEN, LAYERS, HEADS, INTERMEDIATE = 128, 3, 4, 256  # heads of 32: the smallest that vLLM's CPU attention takes
MAX_POSITIONS = 512  # tokens
STEPS, BATCH = 2400, 32
POOL = 8  # batches drawn together and cut by length: a third less padding
LR, MUON_LR, WARMUP = 3e-3, 0.02, 50
PROMPT_WEIGHT = 0.3  # of the loss on the texts themselves: guessing them is how it learns to look back at the query
SEED = 3


def build_judge_tokenizer() -> Any:
    """The players' tokenizer with the judge's own words; the same in every process."""
    tokenizer = build_tokenizer()
    tags = [f"<{slash}{block}>" for block in BLOCKS for slash in ("", "/")]
    words = [
        AddedToken(w, special=False, lstrip=True, normalized=False, single_word=True) for w in (*RUBRIC_WORDS, *HALVES)
    ]
    tokenizer.add_tokens([*words, *(AddedToken(tag, special=False, lstrip=True, normalized=False) for tag in tags)])
    return tokenizer


def write_verdict(verdict: Verdict) -> str:
    """What the judge says for a rule judge's verdict, as its tokens decode: `<score_A>7</score_A><score_B>3</score_B>`."""
    if verdict.faithful is not None:
        return f"<faithful>{str(verdict.faithful).lower()}</faithful>"
    scores = verdict.scores or ()
    names = ("score",) if len(scores) == 1 else ("score_A", "score_B")
    return "".join(f"<{name}>{score:g}</{name}>" for name, score in zip(names, scores, strict=True))


def _batches(tokenizer: Any, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Without end: ids_BT, padded on the right, and what each token is, part_BT: 0 padding, 1 the question's, 2 the verdict's."""
    rng, rules, rubrics = random.Random(seed), RuleJudge(), load_rubrics(RUBRICS)
    turn = tokenizer.convert_tokens_to_ids("<|assistant|>")
    while True:
        chats = []
        for request in (question(rng) for _ in range(BATCH * POOL)):
            said = {"role": "assistant", "content": write_verdict(rules.verdict(request))}
            chats.append([*rubrics.render(request)[0], said])
        rows = sorted(tokenizer.apply_chat_template(chats, return_dict=False), key=len)
        batches = [rows[k : k + BATCH] for k in range(0, len(rows), BATCH)]
        rng.shuffle(batches)
        for batch in batches:
            ids_BT = torch.full((BATCH, len(batch[-1])), tokenizer.pad_token_id)
            part_BT = torch.zeros_like(ids_BT)
            for k, ids in enumerate(batch):
                start = ids.index(turn) + 1
                ids_BT[k, : len(ids)] = torch.tensor(ids)
                part_BT[k, :start], part_BT[k, start : len(ids)] = 1, 2
            yield ids_BT, part_BT


def build_judge(vocabulary: int, eos: int, pad: int) -> Any:
    """A float32 `Qwen2ForCausalLM` with random weights, but for one thing: every head asks for what it offers.

    A head whose query and key projections are the same looks, at first, for earlier tokens like its own. Whether a reply names the
    task that was asked for is such a look, and learning it from nothing takes longer than all the rest.
    """
    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        intermediate_size=INTERMEDIATE,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
        dtype="float32",
    )
    model = Qwen2ForCausalLM(config).float()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model


def _optimizers(model: Any) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, which halves the steps that AdamW needs here; AdamW for the rest."""
    inner = {name: p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name}
    rest = [p for name, p in model.named_parameters() if name not in inner]
    return [
        torch.optim.Muon(inner.values(), lr=MUON_LR, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=LR, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def train(tokenizer: Any, steps: int = STEPS) -> Any:
    """A model that judges like the rule judge. Padding needs no mask: it is on the right, attention is causal, no loss is on it."""
    model = build_judge(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
    optimizers = _optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            o, lambda step: min((step + 1) / WARMUP, max(0.02, 1.25 * (1 - step / steps)), 1.0)
        )
        for o in optimizers
    ]
    model.train()
    for ids_BT, part_BT in islice(_batches(tokenizer, SEED), steps):
        hidden_BTH = model.model(input_ids=ids_BT).last_hidden_state[:, :-1]
        loss = torch.zeros(())
        for part, weight in ((1, PROMPT_WEIGHT), (2, 1.0)):
            learned_BT = part_BT[:, 1:] == part
            loss = loss + weight * cross_entropy(model.lm_head(hidden_BTH[learned_BT]), ids_BT[:, 1:][learned_BT])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
    return model.eval()


def main(folder: Path) -> None:
    """Trains the judge and saves it."""
    tokenizer = build_judge_tokenizer()
    save(train(tokenizer), tokenizer, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
