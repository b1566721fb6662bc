"""A fake server in this process and settings that reach it, for the tests of the API judge."""

import asyncio
from collections.abc import Callable
from typing import Any

from protocol.recipe import ApiConfig, JudgeConfig, SamplingConfig
from protocol.types import Ask, Sampling
from tests.openai_server import Messages, OpenAIServer

KEY = "sk-the-secret-of-this-test"
ASK = Ask("ask", ({"role": "user", "content": "is water wet ?"},), (11, 12), Sampling(0.6, 0.9, 32))
ONE = Ask("one", ASK.messages, (11,), ASK.sampling)
# For a server that answers, and for one that hangs: a busy machine must not look like a hung server.
PATIENCE_S = (20.0, 0.2)


def echo(messages: Messages) -> str:
    return f"you said {messages[-1]['content']}"


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(60.0):
        while not done():  # noqa: ASYNC110  # another thread's count
            await asyncio.sleep(0.01)


def config(server: OpenAIServer, **changes: Any) -> ApiConfig:
    fields = {"base_url": server.url, "model": "fake", "key_env": "THE_KEY", "timeout_s": PATIENCE_S[0], "retries": 2}
    return ApiConfig(**(fields | changes))


def judging(server: OpenAIServer, **changes: Any) -> JudgeConfig:
    """A judge over the endpoint whose questions are small."""
    api, sampling = config(server, **changes), SamplingConfig(temperature=0.4, top_p=0.8, max_new_tokens=200)
    return JudgeConfig(kind="api", workers=1, sampling=sampling, api=api)
