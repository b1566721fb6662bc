"""A FAKE OpenAI-compatible server, for tests only: chat completions from a function, and faults at the turn of a switch.

It runs in a thread of the test's process, on a free port of the loopback, so that other processes (Ray actors) reach it too:

    with OpenAIServer(world_answer) as server:
        config = ApiConfig(base_url=server.url, model="fake", key_env="")
        server.fault = "hang"

A fault holds until the next one; `script` goes first, one entry a request. Error texts repeat the key and the prompt on purpose:
a client that shows them is found out.
"""

import asyncio
import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Self

from aiohttp import web

from cluster.sandbox.rule_judge import RuleJudge
from protocol.types import JudgeRequest

Fault = Literal["ok", "hang", "garbage", "html", "drop", "refuse"] | int  # an integer: that HTTP status
Messages = list[dict[str, str]]
HTML = "<!doctype html><html><body>Welcome</body></html>"


class OpenAIServer:
    """Answers `POST /v1/chat/completions` and `GET /v1/models`.

    Args:
        answer: from the request's messages to the assistant's text.
        key: what the client must send; None lets everybody in.
        delay_s: before each answer.

    fault: what happens to every request. `garbage` is half a JSON object; `drop` closes the connection without an answer; `refuse`
        stops listening as well; `hang` answers only when the fault ends.
    script: faults of the next requests, in order, before `fault` holds again.
    body: what every request is answered with at status 200; None: a completion. bodies: what the next ones are, before that.
    refused: parameters whose presence is answered with status 400, as some endpoints do.
    headers, usage, finish, error_code, error_param: extra response headers; whether tokens are counted (one a word); the choice's
        `finish_reason`; the `code` and `param` of an error.
    requests: the bodies received. most_in_flight: at once.
    """

    def __init__(self, answer: Callable[[Messages], str], key: str | None = None, delay_s: float = 0.0) -> None:
        self.answer, self.key, self.delay_s = answer, key, delay_s
        self.script: deque[Fault] = deque()
        self.headers: dict[str, str] = {}
        self.error_code: str | None = None
        self.error_param: str | None = None
        self.bodies: deque[dict[str, Any]] = deque()
        self.body: dict[str, Any] | None = None
        self.refused: frozenset[str] = frozenset()
        self.usage = True
        self.finish: str | None = "stop"
        self.requests: list[dict[str, Any]] = []
        self.in_flight = self.most_in_flight = 0
        self._fault: Fault = "ok"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def fault(self) -> Fault:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        self._run(self._listen(fault != "refuse"))

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._fault = "ok"  # lets go of what hangs
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen(True)

    async def _listen(self, on: bool) -> None:
        assert self._runner is not None
        if on and self._site is None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
            await self._site.start()
            self.port = self._runner.addresses[0][1]
        elif not on and self._site is not None:
            await self._site.stop()
            self._site = None

    async def _stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "fake", "object": "model"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._respond(request, body)
        finally:
            self.in_flight -= 1

    async def _respond(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        fault = self.script.popleft() if self.script else self._fault
        await asyncio.sleep(self.delay_s)
        while fault == "hang":
            await asyncio.sleep(0.02)
            fault = self._fault
        sent = request.headers.get("Authorization", "")
        if self.key is not None and sent != f"Bearer {self.key}":
            fault = 401
        if found := sorted(self.refused & body.keys()):
            fault, self.error_param = 400, found[0]
        if isinstance(fault, int):
            error = {"message": f"{fault} for {sent}: {body['messages']}", "type": "fake", "code": self.error_code}
            error["param"] = self.error_param
            return web.json_response({"error": error}, status=fault, headers=self.headers)
        if fault == "garbage":
            return web.Response(text='{"choices": [', content_type="application/json")
        if fault == "html":
            return web.Response(text=HTML, content_type="text/html")
        if fault in ("drop", "refuse"):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        own = self.bodies.popleft() if self.bodies else self.body
        return web.json_response(self._completion(body) if own is None else own, headers=self.headers)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        text = self.answer(body["messages"])
        counts = len(" ".join(m["content"] for m in body["messages"]).split()), len(text.split())
        usage = dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True)) | {"total_tokens": sum(counts)}
        message = {"role": "assistant", "content": text}
        return {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish, "logprobs": None}],
        } | ({"usage": usage} if self.usage else {})


_ASKED = re.compile(
    r"judge (?P<criterion>compliance|deflection|refusal|faithful (?P<category>harmful|benign)) <query> (?P<query>.*) </query> "
    r"(?:<response> (?P<one>.*) </response>|<response_A> (?P<a>.*) </response_A> <response_B> (?P<b>.*) </response_B>)",
    re.DOTALL,
)


def world_answer(messages: Messages) -> str:
    """The rule judge's verdict on a question that the sandbox's rubrics (`judge/texts/sandbox`) put, as a model would write it."""
    asked = _ASKED.fullmatch(messages[-1]["content"])
    if asked is None:
        return "this is no question of the sandbox"
    responses = (asked["one"],) if asked["one"] is not None else (asked["a"], asked["b"])
    criterion: Any = "faithfulness" if asked["category"] else asked["criterion"]
    category: Any = asked["category"] or "benign"
    verdict = RuleJudge().verdict(JudgeRequest(criterion, category, asked["query"], responses))
    if verdict.faithful is not None:
        return f"<faithful> {str(verdict.faithful).lower()} </faithful>"
    if verdict.scores is None:
        return "i can not tell"
    names = ("score",) if len(verdict.scores) == 1 else ("score_A", "score_B")
    return " ".join(f"<{name}> {score:.1f} </{name}>" for name, score in zip(names, verdict.scores, strict=True))
