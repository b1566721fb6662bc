"""The fake server that every test of the API judge may ask."""

from collections.abc import Iterator

import pytest

from tests.openai_server import OpenAIServer
from tests.unit.judge.api.asking import KEY, echo


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setattr("judge.api.client.BACKOFF_S", 0.01)
    monkeypatch.setenv("THE_KEY", KEY)
    with OpenAIServer(echo, key=KEY) as running:
        yield running
