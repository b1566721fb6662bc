"""Endpoints and environments that users reported: parameters that are refused, errors in good responses, proxies, certificates."""

from pathlib import Path
from typing import Any

import pytest

from judge.api.client import ApiGenerator, check_endpoint
from judge.api.network import is_local, proxy_variable
from judge.api.outcome import Fault, fault_of
from judge.errors import JudgeUnavailable
from judge.lm import LMJudge
from judge.rubric import load_rubrics
from judge.verdicts import UNREADABLE
from protocol.errors import UserError
from protocol.recipe import ApiConfig, JudgeConfig, JudgeSamplingConfig, parse_recipe
from protocol.types import Completion, JudgeRequest
from tests.openai_server import OpenAIServer
from tests.unit.judge.api.asking import ONE, config, judging

NAMES = {"temperature": "temperature", "top_p": "top_p", "seeded": "seed", "max_new_tokens": "max_completion_tokens"}
QUESTION = JudgeRequest("compliance", "benign", "how?", ("so",))
PROXY = "http://someone:secret@127.0.0.1:9"  # nobody listens there


@pytest.fixture(autouse=True)
def straight(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without proxies and certificates of its own."""
    for scheme in ("http", "https", "all", "no"):
        for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()):
            monkeypatch.delenv(name, raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def sampled(server: OpenAIServer, **sampling: Any) -> JudgeConfig:
    return judging(server).model_copy(update={"sampling": JudgeSamplingConfig(**sampling)})


@pytest.mark.parametrize("names", [*((name,) for name in NAMES), ("temperature", "top_p"), tuple(NAMES)])
async def test_null_leaves_a_parameter_out_and_an_endpoint_that_refuses_it_can_judge(
    names: tuple[str, ...], server: OpenAIServer
) -> None:
    server.refused = frozenset(NAMES[name] for name in names)
    judge = sampled(server, **dict.fromkeys(names))
    generator = ApiGenerator(judge.api, None, judge.sampling.left_out)
    (verdict,) = await LMJudge(generator, load_rubrics("standard"), judge, "api:fake").judge([QUESTION])
    await generator.close()
    assert verdict.failure in UNREADABLE, "it answered, and said what it was told"
    (sent,) = server.requests
    assert {name for name in NAMES.values() if name in sent} == set(NAMES.values()) - server.refused


@pytest.mark.parametrize("name", NAMES)
def test_before_the_run_the_refused_parameter_is_named_with_the_remedy(name: str, server: OpenAIServer) -> None:
    server.refused = frozenset({NAMES[name]})
    with pytest.raises(
        UserError, match=rf"{NAMES[name]} refused \(400\).* \(null leaves a parameter out\): judge\.sampling \("
    ):
        check_endpoint(judging(server))
    check_endpoint(sampled(server, **{name: None}))


def test_the_limit_can_have_its_older_name(server: OpenAIServer) -> None:
    server.refused = frozenset({"max_completion_tokens"})
    check_endpoint(judging(server, max_tokens_name="max_tokens"))
    assert server.requests[0]["max_tokens"] == 200


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "lm", "sampling": {"top_p": None}}, r"judge\.sampling\.top_p: null with judge\.kind lm"),
        (
            {"kind": "api", "api": {"budget": 3.0}, "sampling": {"max_new_tokens": None}},
            r"judge\.sampling\.max_new_tokens: null with judge\.api\.budget, which cannot be kept",
        ),
    ],
)
def test_null_where_the_value_is_needed_is_a_contradiction(values: dict[str, Any], said: str) -> None:
    api = {"base_url": "http://x/v1", "model": "m"}
    with pytest.raises(UserError, match=said):
        parse_recipe({"judge": values | {"workers": 1, "api": api | values.get("api", {})}})


def test_players_have_no_null() -> None:
    with pytest.raises(UserError, match=r"sampling\.top_p: None"):
        parse_recipe({"sampling": {"top_p": None}})


LIMITED: dict[str, Any] = {"error": {"code": 429, "message": "slow down"}}


@pytest.mark.parametrize("body", [LIMITED, {"choices": None}, {"choices": []}])
async def test_a_429_in_a_good_response_is_asked_again_and_costs_nothing(
    body: dict[str, Any], server: OpenAIServer
) -> None:
    server.bodies.extend([body, body])
    generator = ApiGenerator(config(server), None)
    assert await generator.generate(ONE) == [Completion.of(text="you said is water wet ?")]
    used = generator.usage()
    assert (used.requests, used.retries, used.unmetered) == (3, 2, 0)
    server.body = body
    with pytest.raises(JudgeUnavailable) as down:
        await generator.generate(ONE)
    assert (down.value.reason, down.value.permanent) == ("rate limited", False)
    await generator.close()
    with pytest.raises(UserError, match=r"answers 429, too many requests; wait"):
        await _check(server)


async def _check(server: OpenAIServer) -> None:
    import asyncio

    await asyncio.to_thread(check_endpoint, judging(server))


async def test_a_pause_that_a_good_response_asks_for_is_kept(server: OpenAIServer) -> None:
    import time

    server.bodies.append(LIMITED)
    server.headers = {"Retry-After": "0.5"}
    generator = ApiGenerator(config(server), None)
    started = time.monotonic()
    await generator.generate(ONE)
    assert time.monotonic() - started >= 0.5
    await generator.close()


async def test_an_answer_without_a_finish_reason_has_stopped(server: OpenAIServer) -> None:
    server.finish = None
    generator = ApiGenerator(config(server), None)
    (answer,) = await generator.generate(ONE)
    assert answer.finish == "stop"
    await generator.close()


def test_payment_required_says_add_credit(server: OpenAIServer) -> None:
    server.fault = 402
    with pytest.raises(UserError, match=r"quota spent \(402\): the quota of THE_KEY is spent; add credit, or export"):
        check_endpoint(judging(server))


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_one_line(
    content: str | None, server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(
        UserError, match=r"^SSL_CERT_FILE: '\S+ca\.pem' cannot be read as certificates \(\w+\); correct the"
    ):
        check_endpoint(judging(server))
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"^SSL_CERT_DIR: '\S+none' is no folder; correct the variable"):
        check_endpoint(judging(server))


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_in_the_way_of_a_local_endpoint_is_named(
    name: str, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, PROXY)
    with pytest.raises(
        UserError, match=rf"a proxy that is in the way: {name} names it; add 127\.0\.0\.1 to no_proxy"
    ) as e:
        check_endpoint(judging(server))
    assert "secret" not in str(e.value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    check_endpoint(judging(server))


def test_what_a_proxy_answers_for_a_local_endpoint_is_the_proxys(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake server plays a proxy that refuses what it does not know."""
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    unknown = judging(server, base_url="http://10.1.2.3:8000/other")
    with pytest.raises(
        UserError, match=r"no such model or path \(404\), from a proxy that is in the way: http_proxy names it"
    ):
        check_endpoint(unknown)


def test_the_way_to_a_public_endpoint_is_told_with_its_proxy(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    with pytest.raises(
        UserError, match=r"no connection to http://api\.example\.com/v1, through the proxy that http_proxy"
    ):
        check_endpoint(judging(server, base_url="http://api.example.com/v1"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("ftp://x:1", "neither http, https nor socks5"),
        ("http://[bad", r"\w+"),
        ("socks5://x:1", "socksio|no connection"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_line(
    value: str, said: str, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", value)
    with pytest.raises(UserError, match=said) as refused:
        check_endpoint(judging(server))
    assert "\n" not in str(refused.value)


def test_which_hosts_are_local_and_which_variable_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("localhost", "127.0.0.1", "10.0.0.7", "::1", "vllm", "judge.svc", "box.local"):
        assert is_local(host), host
    for host in ("api.openai.com", "8.8.8.8"):
        assert not is_local(host), host
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    assert proxy_variable("https://api.openai.com/v1") == "HTTPS_PROXY"
    assert proxy_variable("http://api.openai.com/v1") is None


def test_a_certificate_that_is_not_trusted_is_no_server_that_is_down() -> None:
    from openai import APIConnectionError

    error = APIConnectionError(request=None)  # type: ignore[arg-type]
    error.__cause__ = OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    assert fault_of(error) == Fault("tls", "certificate not trusted", permanent=True, billed=False)


def test_an_api_config_can_be_used_without_saying_what_is_left_out() -> None:
    assert ApiConfig().max_tokens_name == "max_completion_tokens"
