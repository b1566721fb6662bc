"""What is wrong with an endpoint, a key or an address is one line before a run, and costs one question at most."""

from pathlib import Path

import pytest

from judge.api.client import ApiGenerator, check_endpoint
from protocol.errors import UserError
from protocol.recipe import ApiConfig
from tests.openai_server import Fault, OpenAIServer
from tests.unit.judge.api.asking import PATIENCE_S, judging


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (401, r"^judge\.api\.key_env: http.*: key refused \(401\), with THE_KEY; export a key"),
        (403, r"^judge\.api\.key_env: .*403.*; export a key"),
        (404, r"^judge\.api\.model: 'fake' at http.*404.*; correct judge\.api\.model, or judge\.api\.base_url"),
        (400, r"^judge\.api\.model: 'fake' at http.*refused \(400\).*; choose a model"),
        (429, r"^judge\.api: http.* answers 429, too many requests, for 20 s more; wait"),
        (503, r"^judge\.api: http.* server error 503; try again later"),
        ("html", r"^judge\.api\.base_url: http.* answered HTML, not JSON; give the address"),
        ("garbage", r"^judge\.api\.base_url: http.* answered no JSON; give the address"),
        ("refuse", r"^judge\.api\.base_url: no connection to http.*; start the server"),
        ("drop", r"^judge\.api\.base_url: http.* closed the connection"),
        ("hang", r"^judge\.api\.timeout_s: no answer from http.* in 0\.2 s; look at the server"),
    ],
)
def test_a_bad_endpoint_is_one_line_before_the_run(server: OpenAIServer, fault: Fault, words: str) -> None:
    server.fault, server.headers = fault, {"Retry-After": "20"}
    with pytest.raises(UserError, match=words) as refused:
        check_endpoint(judging(server, timeout_s=PATIENCE_S[fault == "hang"]))
    assert "\n" not in str(refused.value)
    assert len(server.requests) <= 1


def test_a_good_endpoint_passes_and_its_question_is_on_the_account(server: OpenAIServer, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    check_endpoint(judging(server), ledger)
    assert len(server.requests) == 1
    assert '"op":"settle","id":0,"in":7' in ledger.read_text()


@pytest.mark.parametrize(("form", "tags"), [("pairwise", ("<score_A>", "<score_B>")), ("pointwise", ("<score>",))])
def test_the_check_asks_as_the_run_will(server: OpenAIServer, form: str, tags: tuple[str, ...]) -> None:
    held = judging(server).model_copy(update={"structured": True, "form": form})
    check_endpoint(held)
    check_endpoint(held.model_copy(update={"structured": False}))
    (sent, plain) = server.requests
    assert (sent["temperature"], sent["top_p"], sent["max_completion_tokens"]) == (0.4, 0.8, 200)
    assert all(tag in sent["structured_outputs"]["regex"] for tag in tags) and "structured_outputs" not in plain
    server.fault = 400
    with pytest.raises(
        UserError, match=r"\(temperature 0\.4, top_p 0\.8, max_new_tokens 200\), judge\.structured \(true\)$"
    ):
        check_endpoint(held)


def test_a_spent_budget_and_a_spent_quota_are_reported_before_the_run(server: OpenAIServer) -> None:
    with pytest.raises(UserError, match=r"too little for one request: budget_tokens 10 has 10 left; raise it"):
        check_endpoint(judging(server, budget_tokens=10))
    server.fault, server.error_code = 429, "insufficient_quota"
    with pytest.raises(UserError, match=r"the quota of THE_KEY is spent; add credit"):
        check_endpoint(judging(server))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            None,
            r"^judge\.api\.key_env: THE_KEY is not set in the environment; export it \(it is never read from a file\)$",
        ),
        ("  ", "is not set"),
        ("sk-new\nline", "holds white space"),
        ("sk-ü", "holds white space or characters that no key has"),
    ],
)
def test_a_key_that_cannot_be_sent_is_an_error_without_the_key(
    monkeypatch: pytest.MonkeyPatch, value: str | None, words: str
) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("THE_KEY", value)
    with pytest.raises(UserError, match=words) as refused:
        ApiGenerator(ApiConfig(base_url="http://localhost/v1", model="m", key_env="THE_KEY"), None)
    assert "sk-" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "api.example.com/v1",
        "ftp://example.com",
        "http://",
        "http://[::1/v1",
        "https://user:sk-1@example.com/v1",
        "https://example.com/v1?key=sk-1",
    ],
)
def test_an_address_that_is_none_or_carries_a_secret_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"^judge\.api\.base_url: ") as refused:
        ApiGenerator(ApiConfig(base_url=url, model="m", key_env=""), None)
    assert "sk-1" not in str(refused.value)
