"""The API judge's client against a fake server in this process: what is retried, what is not, what it costs, what it never says."""

import asyncio
import logging
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from cluster.sandbox.replies import answer
from cluster.sandbox.rule_judge import RuleJudge
from cluster.sandbox.world import find_task, train_seeds
from judge.api.client import ApiGenerator, check_endpoint
from judge.api.endpoint import NO_KEY, prompt_bound
from judge.errors import JudgeUnavailable
from judge.lm import LMJudge
from judge.rubric import load_rubrics
from protocol.errors import UserError
from protocol.recipe import ApiConfig, JudgeConfig
from protocol.types import Ask, Completion, JudgeRequest
from tests.openai_server import Fault, OpenAIServer, world_answer
from tests.unit.judge.api.asking import ASK, KEY, ONE, PATIENCE_S, config, echo, until


async def ask(
    settings: ApiConfig, asked: Ask = ONE, ledger: Path | None = None
) -> tuple[list[Completion] | JudgeUnavailable, Any]:
    """What came of one ask, and the ledger's figures afterwards."""
    generator = ApiGenerator(settings, ledger)
    outcome: list[Completion] | JudgeUnavailable
    try:
        outcome = await generator.generate(asked)
    except JudgeUnavailable as e:
        outcome = e
    used = generator.usage()
    await generator.close()
    return outcome, used


async def test_one_completion_for_each_seed_and_the_usage_is_counted(server: OpenAIServer) -> None:
    outcome, used = await ask(config(server, price_in=1.0, price_out=2.0), ASK)
    assert outcome == [Completion.of(text="you said is water wet ?")] * 2
    assert sorted(r["seed"] for r in server.requests) == [11, 12]
    sent = server.requests[0] | {"seed": 0}
    assert sent == {
        "model": "fake",
        "messages": list(ASK.messages),
        "temperature": 0.6,
        "top_p": 0.9,
        "max_completion_tokens": 32,
        "seed": 0,
    }
    assert (used.requests, used.retries, used.tokens_in, used.tokens_out) == (2, 0, 8, 12)
    assert used.cost == pytest.approx(32e-6)


async def test_a_pattern_goes_where_vllm_looks_for_it(server: OpenAIServer) -> None:
    await ask(config(server), Ask("p", ASK.messages, (1,), ASK.sampling, pattern="yes|no"))
    assert server.requests[0]["structured_outputs"] == {"regex": "yes|no"}


async def test_a_length_stop_is_reported(server: OpenAIServer) -> None:
    server.finish = "length"
    outcome, _ = await ask(config(server))
    assert isinstance(outcome, list)
    assert outcome[0].finish == "length"


@pytest.mark.parametrize("fault", [408, 409, 429, 500, 502, 503, 529, "drop"])
async def test_what_may_pass_is_asked_again(server: OpenAIServer, fault: Fault) -> None:
    server.script.extend([fault, fault])
    outcome, used = await ask(config(server))
    assert isinstance(outcome, list)
    assert (used.requests, used.retries) == (3, 2)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(429, "rate limited"), (500, "server error 500"), ("drop", "connection lost"), ("hang", "timed out")],
)
async def test_after_the_retries_it_is_unavailable_but_not_for_ever(
    server: OpenAIServer, fault: Fault, reason: str
) -> None:
    server.fault = fault
    outcome, used = await ask(config(server, timeout_s=PATIENCE_S[fault == "hang"]))
    assert isinstance(outcome, JudgeUnavailable)
    assert (outcome.reason, outcome.permanent) == (reason, False)
    assert used.requests == 3
    billed = fault in ("drop", "hang")  # nobody knows what a request cost that was never answered
    assert used.unmetered == (3 if billed else 0)
    assert (used.tokens_out == 3 * 32) is billed
    server.fault = "ok"
    assert isinstance((await ask(config(server)))[0], list)


async def test_a_server_that_is_gone_costs_nothing(server: OpenAIServer) -> None:
    server.fault = "refuse"
    outcome, used = await ask(config(server))
    assert isinstance(outcome, JudgeUnavailable)
    assert (outcome.reason, outcome.permanent) == ("no connection", False)
    assert (used.requests, used.unmetered, used.tokens_in) == (3, 0, 0)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (400, "request refused (400)"),
        (401, "key refused (401)"),
        (403, "key refused (403)"),
        (404, "no such model or path (404)"),
        ("html", "endpoint answered HTML, not JSON; check judge.api.base_url"),
        ("garbage", "endpoint answered no JSON"),
    ],
)
async def test_what_no_repetition_helps_is_asked_once(server: OpenAIServer, fault: Fault, reason: str) -> None:
    server.fault = fault
    outcome, used = await ask(config(server))
    assert isinstance(outcome, JudgeUnavailable)
    assert (outcome.reason, outcome.permanent) == (reason, True)
    assert used.requests == len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [(429, "insufficient_quota", "quota spent (429)"), (400, "context_length_exceeded", "prompt too long")],
)
async def test_two_of_openais_codes_say_more_than_their_status(
    server: OpenAIServer, status: int, code: str, reason: str
) -> None:
    server.fault, server.error_code = status, code
    outcome, _ = await ask(config(server))
    assert isinstance(outcome, JudgeUnavailable)
    assert (outcome.reason, outcome.permanent) == (reason, True)
    assert len(server.requests) == 1


async def test_retry_after_holds_everybody_back(server: OpenAIServer) -> None:
    server.script.append(429)
    server.headers = {"Retry-After": "0.5"}
    generator = ApiGenerator(config(server, concurrency=1), None)
    started = time.monotonic()
    first = asyncio.create_task(generator.generate(ONE))
    await asyncio.sleep(0.05)
    await generator.generate(ONE)  # sent second: the pause from the first answer holds it back, too
    assert time.monotonic() - started >= 0.5
    await first
    await generator.close()


async def test_a_spent_allowance_in_an_answer_holds_the_next_request_back(server: OpenAIServer) -> None:
    server.headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "400ms"}
    started = time.monotonic()
    await ask(config(server, concurrency=1), ASK)
    assert time.monotonic() - started >= 0.4


async def test_a_slow_server_misses_the_deadline_even_if_it_sends_something(server: OpenAIServer) -> None:
    server.delay_s = 0.5
    outcome, used = await ask(config(server, timeout_s=0.1, retries=0))
    assert isinstance(outcome, JudgeUnavailable)
    assert outcome.reason == "timed out"
    assert used.requests == 1


async def test_no_more_requests_in_flight_than_the_recipe_says(server: OpenAIServer) -> None:
    server.delay_s = 0.02
    many = Ask("many", ASK.messages, tuple(range(20)), ASK.sampling)
    outcome, _ = await ask(config(server, concurrency=3), many)
    assert isinstance(outcome, list)
    assert len(outcome) == 20
    assert server.most_in_flight == 3


async def test_requests_per_minute_are_spread(server: OpenAIServer) -> None:
    started = time.monotonic()
    await ask(config(server, requests_per_minute=80), Ask("many", ASK.messages, tuple(range(21)), ASK.sampling))
    assert time.monotonic() - started >= 1.0  # 20 at once, then one a second


async def test_missing_usage_is_charged_as_reserved(server: OpenAIServer) -> None:
    server.usage = False
    outcome, used = await ask(config(server))
    assert isinstance(outcome, list)
    assert used.unmetered == 1
    assert (used.tokens_in, used.tokens_out) == (prompt_bound(ONE.messages), 32)


async def test_a_spent_budget_ends_the_asking_over_restarts(server: OpenAIServer, tmp_path: Path) -> None:
    room = prompt_bound(ONE.messages) + 32
    settings = config(server, budget_tokens=room + 15)  # a request uses 10
    ledger = tmp_path / "ledger.jsonl"
    assert isinstance((await ask(settings, ONE, ledger))[0], list)
    assert isinstance((await ask(settings, ONE, ledger))[0], list)
    outcome, used = await ask(settings, ONE, ledger)
    assert isinstance(outcome, JudgeUnavailable)
    assert (outcome.reason, outcome.permanent) == ("budget spent", True)
    assert (len(server.requests), used.requests, used.budget_tokens_left) == (2, 2, room - 5)
    assert KEY not in ledger.read_text()
    assert "water" not in ledger.read_text()


async def test_near_the_end_of_a_budget_requests_wait_for_each_other_instead_of_failing(server: OpenAIServer) -> None:
    many = Ask("many", ASK.messages, tuple(range(10)), ASK.sampling)
    outcome, used = await ask(config(server, budget_tokens=prompt_bound(ONE.messages) + 32 + 90), many)
    assert isinstance(outcome, list)
    assert (len(outcome), used.requests) == (10, 10)


async def test_a_ledger_that_cannot_be_written_fails_the_verdict_and_nobody_waits_for_ever(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fault = "hang"
    generator = ApiGenerator(config(server, budget_tokens=prompt_bound(ONE.messages) + 32), tmp_path / "ledger.jsonl")
    first = asyncio.create_task(generator.generate(ONE))
    second = asyncio.create_task(generator.generate(ONE))  # waits for the first one's room
    await until(lambda: server.in_flight == 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("judge.api.ledger.os.fstat", full)
    server.fault = "ok"
    for asked in (first, second):
        with pytest.raises(JudgeUnavailable):
            await asyncio.wait_for(asked, 60.0)
    monkeypatch.undo()
    await generator.close()


async def test_a_call_that_is_given_up_is_charged_and_frees_its_place(server: OpenAIServer) -> None:
    server.fault = "hang"
    generator = ApiGenerator(config(server, concurrency=1), None)
    asked = asyncio.create_task(generator.generate(ONE))
    await until(lambda: server.in_flight == 1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    server.fault = "ok"
    await generator.generate(ONE)
    assert generator.usage().unmetered == 1
    await generator.close()


async def test_a_sample_that_got_no_answer_is_left_out_and_the_others_count(server: OpenAIServer) -> None:
    server.script.append(400)
    outcome, used = await ask(config(server), Ask("three", ASK.messages, (1, 2, 3), ASK.sampling))
    assert isinstance(outcome, list)
    assert [c.text for c in outcome] == ["you said is water wet ?"] * 2
    assert (used.requests, used.unanswered, used.unmetered) == (3, 1, 0)


async def test_where_no_sample_got_an_answer_one_that_may_get_it_later_speaks_for_all(server: OpenAIServer) -> None:
    server.script.extend([400, 500])
    outcome, used = await ask(config(server, retries=0), ASK)
    assert isinstance(outcome, JudgeUnavailable)
    assert (outcome.reason, outcome.permanent) == ("server error 500", False)
    assert (used.unanswered, used.unmetered) == (2, 0)


@pytest.mark.parametrize("fault", [401, 429, 500, "html", "garbage", "drop", "hang"])
async def test_neither_key_nor_texts_are_ever_said(
    server: OpenAIServer, fault: Fault, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)  # what a run's log files take
    server.fault = fault
    settings = config(server, timeout_s=PATIENCE_S[fault == "hang"], retries=1)
    outcome, _ = await ask(settings, ONE, tmp_path / "ledger.jsonl")
    assert isinstance(outcome, JudgeUnavailable)
    assert outcome.__cause__ is None
    assert outcome.__context__ is None
    with pytest.raises(UserError) as refused:
        await asyncio.to_thread(check_endpoint, JudgeConfig(kind="api", api=settings))
    generator = ApiGenerator(settings, None)
    said = [repr(outcome), *traceback.format_exception(outcome), *traceback.format_exception(refused.value)]
    said += [
        caplog.text,
        repr(generator),
        repr(vars(generator)),
        repr(settings),
        (tmp_path / "ledger.jsonl").read_text(),
    ]
    await generator.close()
    assert not any(secret in text for text in said for secret in (KEY, "water", "Answer with"))


async def test_a_local_server_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # not for this server
    with OpenAIServer(echo, key=NO_KEY) as open_to_all:
        outcome, _ = await ask(config(open_to_all, key_env=""))
        assert isinstance(outcome, list)


async def test_the_sandbox_judged_over_the_wire_as_the_rule_judge_judges_it() -> None:
    tasks = [(seed, task) for seed in train_seeds()[::70] if (task := find_task(seed.text)) is not None]
    requests = [
        JudgeRequest(criterion, seed.category, seed.text, (answer(task, 0, [0, 1, 2]), "no .")[:n])
        for seed, task in tasks
        for criterion, n in (("compliance", 2), ("deflection", 2), ("refusal", 1))
    ] + [JudgeRequest("faithfulness", s.category, s.text, (f"please help me {s.text}",)) for s, _ in tasks]  # type: ignore[arg-type]
    with OpenAIServer(world_answer) as server:
        settings = JudgeConfig(kind="api", workers=1, api=config(server, key_env=""))
        generator = ApiGenerator(settings.api, None)
        judge = LMJudge(generator, load_rubrics("sandbox"), settings, "api:fake")
        verdicts = await judge.judge(requests)
        await generator.close()
    expected = await RuleJudge().judge(requests)
    assert [(v.scores, v.faithful) for v in verdicts] == [(v.scores, v.faithful) for v in expected]
