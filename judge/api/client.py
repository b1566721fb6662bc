"""A judge's model behind an OpenAI-compatible endpoint, as a `Generator`: retried, paced, metered.

Each attempt waits, in this order, for a place among `concurrency`, for the rate limits and the server's pauses, and for a
reservation in the ledger. Then it is sent, with one deadline.

Invariants:
- at most `concurrency` attempts are in flight, and they are sent in the order they came, so none is overtaken for ever;
- every reservation is settled once: with the response's usage; at zero if the server refused it; in full if the usage is unknown;
- an attempt that waits to be sent costs nothing and has no deadline: `timeout_s` begins when it is sent. Every wait ends, because
  each place, pause and reservation before it does;
- it raises `JudgeUnavailable` with a reason of ours, which holds no key, prompt or answer, and chains no exception that does.

Does not read verdicts (`lm` does) nor ask again with another seed (`pool` does).
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from openai import APIError, AsyncOpenAI
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from judge.api.endpoint import base_url, explain, make_payload, prompt_bound, read_key
from judge.api.ledger import BUDGET_SPENT, Ledger
from judge.api.limits import RateLimits, used_up_s
from judge.api.network import check_environment
from judge.api.outcome import Answer, Fault, fault_of, read_answer
from judge.errors import JudgeUnavailable
from judge.sampling import fill_in
from judge.stats import ApiUsage
from judge.verdicts import pattern
from protocol.errors import UserError
from protocol.recipe import ApiConfig, JudgeConfig
from protocol.types import Ask, Completion

BACKOFF_S, BACKOFF_MAX_S = 0.5, 30.0  # full jitter: the first wait is 0 to 0.5 s, each later one up to twice as long
BYTES_PER_TOKEN = 4  # of English, for the pace only; the response's usage corrects it
CHECK = "Answer with {} and nothing else."


class _AttemptFailed(Exception):
    """Passes a fault from an attempt to its retries; never leaves this module."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, _AttemptFailed) and error.fault.retry


def _open(config: ApiConfig) -> AsyncOpenAI:
    key, url = read_key(config), base_url(config)
    check_environment()
    try:
        return AsyncOpenAI(api_key=key, base_url=url, max_retries=0, timeout=config.timeout_s)
    except Exception as error:  # noqa: BLE001  # the client's library raises what it likes, with what a proxy's address holds
        raise UserError(
            f"judge.api: no client can be made in this environment ({type(error).__name__}); look at the variables http_proxy, "
            "https_proxy, all_proxy, no_proxy and SSL_CERT_FILE"
        ) from None


class ApiGenerator:
    """Implements `protocol.interfaces.Generator`. Completions have text and finish only: no token ids, versions 0.

    Use it from one event loop.

    Args:
        config: the recipe's `judge.api`.
        ledger: where spending is recorded; None keeps it in memory, and a restart begins anew.
        left_out: parameters that the endpoint is not sent (`JudgeSamplingConfig.left_out`).

    Raises:
        UserError: no key, no address, an environment that no client can be made in, or the ledger cannot be used.
    """

    def __init__(self, config: ApiConfig, ledger: Path | None, left_out: Collection[str] = ()) -> None:
        self._config, self._left_out = config, left_out
        self._client = _open(config)
        self._ledger = Ledger(config, ledger)
        self._limits = RateLimits(config.requests_per_minute, config.tokens_per_minute, time.monotonic())
        self._slots = asyncio.Semaphore(config.concurrency)
        self._turn = asyncio.Lock()
        self._settled = asyncio.Event()
        self._unanswered = 0

    async def generate(self, ask: Ask) -> list[Completion]:
        """One completion for each seed, in order; a seed that got no answer is left out, and counted.

        Raises:
            JudgeUnavailable: no seed got an answer: after the retries, or at once where they cannot help.
        """
        outcomes = await asyncio.gather(*(self._sample(ask, seed) for seed in ask.seeds), return_exceptions=True)
        answered = [o for o in outcomes if isinstance(o, Completion)]
        failed = [o for o in outcomes if isinstance(o, BaseException)]
        self._unanswered += len(failed)
        for error in failed:
            if not isinstance(error, JudgeUnavailable):
                raise error
        if not answered:  # permanent only if all are
            raise min((e for e in failed if isinstance(e, JudgeUnavailable)), key=lambda e: e.permanent)
        return answered

    def usage(self) -> ApiUsage:
        """What the ledger says, and the `unanswered` samples of this process."""
        return replace(self._ledger.usage(), unanswered=self._unanswered)

    async def close(self) -> None:
        """Closes the connections and the ledger."""
        await self._client.close()
        self._ledger.close()

    async def _sample(self, ask: Ask, seed: int) -> Completion:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._config.retries + 1),
            wait=wait_random_exponential(multiplier=BACKOFF_S, max=BACKOFF_MAX_S),
            retry=retry_if_exception(_is_transient),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    answer = await self._attempt(ask, seed, attempt.retry_state.attempt_number > 1)
        except _AttemptFailed as failed:
            fault = failed.fault
        else:
            return Completion.of(text=answer.text, finish=answer.finish)
        raise JudgeUnavailable(fault.reason, fault.permanent)

    async def _attempt(self, ask: Ask, seed: int, retry: bool) -> Answer:
        most_in, most_out = prompt_bound(ask.messages), ask.sampling.max_new_tokens
        expected = most_in // BYTES_PER_TOKEN + most_out
        async with self._slots:
            async with self._turn:
                while (wait_s := self._limits.admit(time.monotonic(), expected)) > 0:  # noqa: ASYNC110  # time is the event
                    await asyncio.sleep(wait_s)
                while (number := self._ledger.reserve(most_in, most_out, retry)) is None:
                    self._settled.clear()
                    await self._settled.wait()
            outcome: Answer | Fault | None = None
            try:
                outcome = await self._send(ask, seed)
            finally:
                self._settle(number, expected, outcome)
        if isinstance(outcome, Fault):
            raise _AttemptFailed(outcome)
        return outcome

    async def _send(self, ask: Ask, seed: int) -> Answer | Fault:
        """One request and its outcome. The deadline covers all of it: the client's own begins anew with every byte."""
        try:
            async with asyncio.timeout(self._config.timeout_s):
                raw = await self._client.chat.completions.with_raw_response.create(
                    **make_payload(self._config, ask, seed, self._left_out)
                )
        except (APIError, TimeoutError) as error:
            fault = fault_of(error)
            self._limits.pause(time.monotonic(), fault.pause_s)
            return fault
        self._limits.pause(time.monotonic(), used_up_s(raw.headers))
        outcome = read_answer(raw.http_response.content, raw.headers)
        if isinstance(outcome, Fault):
            self._limits.pause(time.monotonic(), outcome.pause_s)
        return outcome

    def _settle(self, number: int, expected: int, outcome: Answer | Fault | None) -> None:
        """Closes a reservation. `outcome` is None if the request was cancelled in flight: the server may go on with it."""
        used = _count_used(outcome)
        try:
            if used is None:
                self._ledger.settle_unmetered(number)
            else:
                self._limits.settle(expected, sum(used))
                self._ledger.settle(number, *used)
        finally:
            self._settled.set()


def _count_used(outcome: Answer | Fault | None) -> tuple[int, int] | None:
    """Prompt and completion tokens that were paid for; None if that is unknown."""
    if isinstance(outcome, Answer) and outcome.tokens_in is not None and outcome.tokens_out is not None:
        return outcome.tokens_in, outcome.tokens_out
    return (0, 0) if isinstance(outcome, Fault) and not outcome.billed else None


def check_endpoint(config: JudgeConfig, ledger: Path | None = None) -> None:
    """Asks the endpoint one short question, before a run depends on it. Blocks for about `timeout_s` at most.

    It is a chat, not the list of models: public gateways give that list to anybody, and it shows no spent quota. Sampling and
    structured decoding are the run's, so that a server which refuses the run's questions refuses this one.

    Args:
        config: the recipe's `judge`.
        ledger: the run's ledger; the question is paid from it.

    Raises:
        UserError: what is wrong, in one line.
    """
    asyncio.run(_check(config, ledger))


def _make_question(config: JudgeConfig) -> Ask:
    shown, sampling = 1 if config.form == "pointwise" else 2, fill_in(config.sampling)
    verdict = "<score>5</score>" if shown == 1 else "<score_A>5</score_A> <score_B>5</score_B>"
    return Ask(
        "check",
        ({"role": "user", "content": CHECK.format(verdict)},),
        (0,),
        sampling,
        pattern("compliance", shown, sampling.max_new_tokens) if config.structured else None,
    )


async def _check(config: JudgeConfig, ledger: Path | None) -> None:
    api = config.api
    generator = ApiGenerator(api, ledger, config.sampling.left_out)
    try:
        await generator._attempt(_make_question(config), 0, retry=False)
    except _AttemptFailed as failed:
        fault = failed.fault
    except JudgeUnavailable as failed:
        if failed.reason != BUDGET_SPENT:
            raise UserError(f"judge.api: {ledger}: {failed.reason}; make room on its disk") from None
        used = generator.usage()
        budgets = (
            ("budget", api.budget, used.budget_left),
            ("budget_tokens", api.budget_tokens, used.budget_tokens_left),
        )
        left = ", ".join(f"{key} {limit:g} has {rest:g} left" for key, limit, rest in budgets if limit)
        raise UserError(f"judge.api.budget: too little for one request: {left}; raise it, or begin a new run") from None
    else:
        return
    finally:
        await generator.close()
    if fault.kind != "refused":
        raise UserError(explain(fault, api))
    s, structured = config.sampling, str(config.structured).lower()
    raise UserError(
        f"{explain(fault, api)}, or change what is asked of them (null leaves a parameter out): judge.sampling "
        f"(temperature {_show(s.temperature)}, top_p {_show(s.top_p)}, max_new_tokens {_show(s.max_new_tokens)}), "
        f"judge.structured ({structured})"
    )


def _show(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"
