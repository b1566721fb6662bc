"""The generator that cross-play asks: what it samples is what the model says, whoever else is asked at the same time."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.sandbox.tiny_qwen import build_qwen2, save
from cluster.sandbox.tokenizer import build_tokenizer
from cluster.sandbox.world import heldout_seeds
from cluster.study.local import LocalPlayer
from protocol.prompts import attacker_messages, defender_messages
from protocol.types import Ask, Sampling
from tests.numerics import LOGP

pytestmark = pytest.mark.numerics
FREE = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=12)
SEEDS = heldout_seeds()


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> LocalPlayer:
    folder: Path = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    torch.manual_seed(5)
    save(build_qwen2(tokenizer, 96, 2, 3, 256, 256).eval(), tokenizer, folder)
    return LocalPlayer(folder)


def ask(k: int, seeds: tuple[int, ...] = (7,), sampling: Sampling = FREE) -> Ask:
    """Prompts of different lengths, so that a batch is padded."""
    seed = SEEDS[k]
    long = attacker_messages(seed, "sandbox", "think_prompt")
    return Ask(str(k), long if k % 2 else defender_messages(seed.text, "sandbox", "plain"), seeds, sampling)


async def test_an_answer_does_not_depend_on_who_else_is_asked(player: LocalPlayer) -> None:
    together = await asyncio.gather(*(player.generate(ask(k)) for k in range(6)))
    for k, (answer,) in enumerate(together):
        (alone,) = await player.generate(ask(k))
        assert (alone.token_ids, alone.text) == (answer.token_ids, answer.text)
        assert alone.logprobs == pytest.approx(answer.logprobs, abs=2 * LOGP)


async def test_log_probabilities_are_those_of_a_plain_forward_pass(player: LocalPlayer) -> None:
    model: Any = player._model
    for answer in (await asyncio.gather(player.generate(ask(0)), player.generate(ask(1))))[1]:
        ids = [*answer.prompt_ids, *answer.token_ids]
        with torch.no_grad():
            logp_TV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(answer.prompt_ids)
        expected = [float(logp_TV[t - 1, ids[t]]) for t in range(start, len(ids))]
        assert answer.logprobs == pytest.approx(expected, abs=2 * LOGP)


async def test_each_seed_of_an_ask_is_a_sample_of_its_own_and_repeats(player: LocalPlayer) -> None:
    first, second, again = await player.generate(ask(0, (1, 2, 1)))
    assert first.token_ids == again.token_ids != second.token_ids
    assert first.finish == "length" and len(first.token_ids) == FREE.max_new_tokens


async def test_temperature_and_top_p_cut_to_the_likeliest_words(player: LocalPlayer) -> None:
    greedy = Sampling(temperature=1.0, top_p=1e-6, max_new_tokens=1)
    answers = await player.generate(ask(0, tuple(range(8)), greedy))
    assert len(Counter(tuple(a.token_ids) for a in answers)) == 1
    model: Any = player._model
    with torch.no_grad():
        likeliest = int(model(torch.tensor([answers[0].prompt_ids])).logits[0, -1].argmax())
    assert answers[0].token_ids.tolist() == [likeliest]
