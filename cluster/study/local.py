"""A `protocol.interfaces.Generator` over a Hugging Face folder, in this process: plain torch, for models as tiny as the sandbox's.

The study asks many trained models a few questions each: a vLLM engine takes a minute to start, and a model of 0.2 M parameters
answers 300 asks in a second. Asks that arrive together are answered as one batch; each sample has a generator with its own seed.
"""

import asyncio
from pathlib import Path
from typing import Any

from actors.engine.chat import ChatPrompts
from protocol.types import Ask, Completion, Sampling

BATCH = 512  # samples at once: 512 x 128 positions x 2 layers of keys and values are 100 MB


class LocalPlayer:
    """Answers asks; every ask of a batch has the same `Sampling`."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._prompts = ChatPrompts(self._tokenizer)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        self._waiting: list[tuple[Ask, asyncio.Future[list[Completion]]]] = []

    async def generate(self, ask: Ask) -> list[Completion]:
        """One completion for each seed of the ask, in that order."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._answer)  # runs after everything that is ready now has asked too
        future: asyncio.Future[list[Completion]] = loop.create_future()
        self._waiting.append((ask, future))
        return await future

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            prompts = [self._prompts.encode(ask.messages) for ask, _ in waiting]
            samples = [(ids, seed) for ids, (ask, _) in zip(prompts, waiting, strict=True) for seed in ask.seeds]
            done: list[Completion] = []
            for at in range(0, len(samples), BATCH):
                done += self._sample(samples[at : at + BATCH], waiting[0][0].sampling)
        except Exception as error:  # noqa: BLE001  # raised in those who wait: this callback has no caller
            for _, future in waiting:
                future.set_exception(error)
            return
        answers = iter(done)
        for ask, future in waiting:
            future.set_result([next(answers) for _ in ask.seeds])

    def _sample(self, samples: list[tuple[list[int], int]], sampling: Sampling) -> list[Completion]:
        """Prompts are padded on the left, so that every row's next token is at the last position."""
        import torch

        width, end = max(len(ids) for ids, _ in samples), self._tokenizer.eos_token_id
        input_BT = torch.tensor([[end] * (width - len(ids)) + ids for ids, _ in samples])
        seen_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in samples])
        generators = [torch.Generator().manual_seed(seed) for _, seed in samples]
        drawn: list[list[tuple[int, float]]] = [[] for _ in samples]
        open_rows, cache = set(range(len(samples))), None
        with torch.inference_mode():
            for _ in range(sampling.max_new_tokens):
                position_BT = (seen_BT.cumsum(-1) - 1).clamp(min=0)[:, -input_BT.shape[1] :]
                out = self._model(
                    input_ids=input_BT,
                    attention_mask=seen_BT,
                    position_ids=position_BT,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                cache, logits_BV = out.past_key_values, out.logits[:, -1]
                logp_BV, probs_BV = logits_BV.log_softmax(-1), _sampling_probs(logits_BV, sampling)
                input_BT = torch.full((len(samples), 1), end)
                for row in sorted(open_rows):
                    token = int(torch.multinomial(probs_BV[row], 1, generator=generators[row]))
                    drawn[row].append((token, float(logp_BV[row, token])))
                    input_BT[row, 0] = token
                    if token == end:
                        open_rows.remove(row)
                if not open_rows:
                    break
                seen_BT = torch.cat([seen_BT, torch.ones_like(input_BT)], 1)
        return [self._completion(ids, drawn[row], row in open_rows) for row, (ids, _) in enumerate(samples)]

    def _completion(self, prompt: list[int], drawn: list[tuple[int, float]], cut: bool) -> Completion:
        ids = [token for token, _ in drawn]
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return Completion.of(prompt, ids, [p for _, p in drawn], text, "length" if cut else "stop")


def _sampling_probs(logits_BV: Any, sampling: Sampling) -> Any:
    """The distribution to sample from: the softmax at the temperature, cut to the fewest tokens that hold `top_p` of it."""
    probs_BV = (logits_BV / sampling.temperature).softmax(-1)
    if sampling.top_p >= 1.0:
        return probs_BV
    ordered_BV, place_BV = probs_BV.sort(-1, descending=True)
    beyond_BV = ordered_BV.cumsum(-1) - ordered_BV >= sampling.top_p  # what comes before it is enough
    return probs_BV.masked_fill(beyond_BV.scatter(-1, place_BV, beyond_BV), 0.0)
