"""How an endpoint's answer is read: what is no completion, what is not whole, what usage cannot be believed."""

import pytest

from judge.api.endpoint import read_answer


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"3",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{"message":{"content":7},"finish_reason":"stop"}]}',
        b'{"error":"x"}',
    ],
)
def test_json_that_is_no_completion_is_a_fault(body: bytes) -> None:
    said = read_answer(body, "application/json")
    assert getattr(said, "reason", None) == "endpoint answered no chat completion"


@pytest.mark.parametrize(
    ("ended", "reason"), [("content_filter", "content filtered"), ("tool_calls", "unfinished answer")]
)
def test_an_answer_that_is_not_whole_is_a_fault(ended: str, reason: str) -> None:
    body = f'{{"choices":[{{"message":{{"content":"<score>1</score>"}},"finish_reason":"{ended}"}}]}}'.encode()
    assert getattr(read_answer(body, "application/json"), "reason", None) == reason


@pytest.mark.parametrize(
    "usage",
    [
        '"many"',
        "{}",
        '{"prompt_tokens":0,"completion_tokens":1}',
        '{"prompt_tokens":1.5,"completion_tokens":1}',
        "null",
    ],
)
def test_usage_that_cannot_be_believed_is_none(usage: str) -> None:
    body = f'{{"choices":[{{"message":{{"content":"x"}},"finish_reason":"stop"}}],"usage":{usage}}}'.encode()
    said = read_answer(body, "application/json")
    assert getattr(said, "tokens_in", 0) is None
