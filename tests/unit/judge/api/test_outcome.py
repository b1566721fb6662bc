"""Responses of servers that call themselves compatible and differ: what each is taken for."""

import json
from typing import Any

import pytest

from judge.api.outcome import Answer, Fault, read_answer

USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def completion(content: Any = "yes", **choice: Any) -> dict[str, Any]:
    chosen = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {"choices": [chosen | choice], "usage": USAGE}


def read(body: Any, **headers: str) -> Answer | Fault:
    return read_answer(json.dumps(body).encode(), {"content-type": "application/json"} | headers)


@pytest.mark.parametrize(
    ("error", "kind", "retry"),
    [
        ({"code": 429, "message": "slow down"}, "rate", True),
        ({"code": "429"}, "rate", True),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, "rate", True),
        ({"code": "rate_limit_exceeded"}, "rate", True),
        ({"type": "rate_limit_error"}, "rate", True),
        ({"code": 502}, "server", True),
        ({"code": 529, "message": "overloaded"}, "server", True),
        ({"message": "something"}, "server", True),
        ("something", "server", True),
        ({"code": 401}, "key", False),
        ({"code": 402}, "quota", False),
        ({"code": "insufficient_quota"}, "quota", False),
        ({"code": 404}, "missing", False),
        ({"code": 400}, "refused", False),
    ],
)
@pytest.mark.parametrize("where", ["body", "beside empty choices", "choice"])
def test_an_error_inside_a_good_status_is_what_it_would_be_alone(
    error: Any, kind: str, retry: bool, where: str
) -> None:
    bodies = {
        "body": {"error": error},
        "beside empty choices": {"error": error, "choices": []},
        "choice": completion(error=error, finish_reason="error"),
    }
    fault = read(bodies[where])
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.retry, fault.permanent) == (kind, retry, not retry)
    assert "slow" not in fault.reason and "something" not in fault.reason


@pytest.mark.parametrize("choices", [None, []])
def test_no_choices_are_a_429(choices: Any) -> None:
    fault = read({"id": "x", "choices": choices}, **{"retry-after": "3"})
    assert fault == Fault("rate", "rate limited", retry=True, billed=False, pause_s=3.0)
    counted = read({"choices": choices, "usage": USAGE})
    assert isinstance(counted, Fault) and counted.billed, "what was counted is paid for"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        *(
            (None, "stop"),
            ("", "stop"),
            ("stop", "stop"),
            ("STOP", "stop"),
            ("eos_token", "stop"),
            ("end_turn", "stop"),
        ),
        *(("length", "length"), ("MAX_TOKENS", "length"), ("model_length", "length")),
    ],
)
def test_how_an_answer_ended_in_the_words_of_several_servers(reason: str | None, finish: str) -> None:
    assert read(completion(finish_reason=reason)) == Answer("yes", finish, 7, 3)  # type: ignore[arg-type]


def test_an_answer_that_does_not_say_how_it_ended_has_stopped() -> None:
    body = completion()
    del body["choices"][0]["finish_reason"]
    assert read(body) == Answer("yes", "stop", 7, 3)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "<score>"}, {"type": "text", "text": "5</score>"}], "<score>5</score>"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}], "yes"),
        ([{"type": "output_text", "text": "yes"}], "yes"),
        ([{"text": "yes"}], "yes"),
        (["y", "es"], "yes"),
        ([], ""),
        (None, ""),
    ],
)
def test_the_text_chunks_of_a_list_are_joined(content: Any, text: str) -> None:
    assert read(completion(content)) == Answer(text, "stop", 7, 3)


@pytest.mark.parametrize(
    "body",
    [
        *([], "text", None, {}, {"detail": "x"}, {"choices": "x"}, {"choices": [None]}, {"choices": [{}]}),
        *(completion(3), completion({"text": "x"}), completion([3]), completion([{"type": "text", "text": 3}])),
        *(completion(finish_reason=3), completion(message=None), completion(message={})),
    ],
)
def test_what_is_no_chat_completion_is_never_taken_for_one(body: Any) -> None:
    assert read(body) == Fault("odd", "endpoint answered no chat completion", permanent=True)


@pytest.mark.parametrize(("reason", "said"), [("tool_calls", "unfinished answer"), ("SAFETY", "content filtered")])
def test_other_ends_are_faults(reason: str, said: str) -> None:
    fault = read(completion(finish_reason=reason))
    assert isinstance(fault, Fault) and fault.reason == said


@pytest.mark.parametrize(
    "usage",
    ["many", {}, {"prompt_tokens": 0, "completion_tokens": 1}, {"prompt_tokens": 1.5, "completion_tokens": 1}, None],
)
def test_usage_that_cannot_be_believed_is_none(usage: Any) -> None:
    assert read(completion() | {"usage": usage}) == Answer("yes", "stop")
