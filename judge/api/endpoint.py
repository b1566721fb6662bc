"""Requests to an OpenAI-compatible endpoint, and its responses: an answer, or a fault and what can be done about it.

Pure, except that the key is read from the environment. Invariants: a fault's words are ours, never the server's, so that they hold
no key, prompt or answer; a text that is no chat completion is never taken for one.

It sends nothing; `client` does.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

from judge.api.limits import retry_after_s, used_up_s
from protocol.errors import UserError
from protocol.recipe import ApiConfig
from protocol.types import Ask, Finish, Message

NO_KEY = "EMPTY"  # what a server that wants no key is sent
MESSAGE_TOKENS, CHAT_TOKENS = 16, 256  # at most, of a chat template: around each message, and around all of them

TRANSIENT = frozenset({408, 409, 429})  # and every 5xx
MAYBE_BILLED = frozenset({408, 502, 504})  # a gateway that answers so had passed the request on

Kind = Literal[
    "key", "missing", "rate", "quota", "refused", "server", "timeout", "lost", "no_server", "html", "no_json", "odd"
]


@dataclass(frozen=True, slots=True)
class Answer:
    """One chat completion. The counts are None where the response has no plausible usage."""

    text: str
    finish: Finish
    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no answer.

    kind: chooses what the user reads (`explain`). reason: a few words, for verdicts and counts.
    retry: the same request may succeed later. permanent: only a person can help.
    billed: the request may have cost something nevertheless.
    pause_s: seconds in which the server wants no request.
    """

    kind: Kind
    reason: str
    retry: bool = False
    permanent: bool = False
    billed: bool = True
    pause_s: float = 0.0


def read_key(config: ApiConfig, environ: Mapping[str, str] = os.environ) -> str:
    """The key, from the environment variable that the recipe names.

    Raises:
        UserError: it is not set, or holds characters that no HTTP header can hold (the header's own error would print the key).
    """
    name = config.key_env
    if not name:
        return NO_KEY
    key = environ.get(name, "").strip()
    if not key:
        raise UserError(
            f"judge.api.key_env: {name} is not set in the environment; export it (it is never read from a file)"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(f"judge.api.key_env: {name} holds white space or characters that no key has; export it again")
    return key


def base_url(config: ApiConfig) -> str:
    """The endpoint's address, which logs and messages may show.

    Raises:
        UserError: it is no address, or carries a password.
    """
    url = config.base_url or ""
    try:
        parts = urlsplit(url)
    except ValueError:  # half an IPv6 address
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"judge.api.base_url: {url!r} is no address; give one as in https://api.example.com/v1")
    if parts.username or parts.password or parts.query:
        raise UserError(
            f"judge.api.base_url: the address of {parts.hostname} carries a user, password or query; "
            "take it out and name the key's variable in judge.api.key_env"
        )
    return url


def prompt_bound(messages: Sequence[Message]) -> int:
    """An upper bound of these messages' tokens, for any tokenizer: a token of text is at least one byte of UTF-8."""
    return CHAT_TOKENS + sum(MESSAGE_TOKENS + len(m["content"].encode()) for m in messages)


def make_payload(config: ApiConfig, ask: Ask, seed: int) -> dict[str, Any]:
    """Keyword arguments of the client's `chat.completions.create`.

    `max_completion_tokens`, because OpenAI's newer models refuse the older `max_tokens`, vLLM calls it deprecated, and both
    together are refused. The pattern goes where vLLM's server reads it; other servers refuse it with a message.
    """
    arguments: dict[str, Any] = {
        "model": config.model,
        "messages": list(ask.messages),
        "max_completion_tokens": ask.sampling.max_new_tokens,
        "temperature": ask.sampling.temperature,
        "top_p": ask.sampling.top_p,
        "seed": seed,
    }
    if ask.pattern is not None:
        arguments["extra_body"] = {"structured_outputs": {"regex": ask.pattern}}
    return arguments


def read_answer(body: bytes, content_type: str) -> Answer | Fault:
    """The answer in a response with status 200. A part that is missing or of another type is a fault."""
    if "html" in content_type or body.lstrip()[:1] == b"<":
        return Fault("html", "endpoint answered HTML, not JSON; check judge.api.base_url", permanent=True)
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return Fault("no_json", "endpoint answered no JSON", permanent=True)
    try:
        choice = said["choices"][0]
        text, ended = choice["message"]["content"] or "", choice["finish_reason"]
    except (LookupError, TypeError):
        text, ended = None, None
    if not isinstance(text, str):
        return Fault("odd", "endpoint answered no chat completion", permanent=True)
    if ended == "content_filter":
        return Fault("refused", "content filtered", permanent=True)
    if ended not in ("stop", "length"):
        return Fault("odd", "unfinished answer")
    return Answer(text, ended, *_usage(said.get("usage")))


def _usage(usage: object) -> tuple[int | None, int | None]:
    """Prompt and completion tokens. A prompt of 0 tokens is implausible and not counted: a budget depends on it."""
    if isinstance(usage, dict):
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if all(type(count) is int and count >= 0 for count in counts) and counts[0]:
            return counts
    return None, None


def fault_of(error: APIError | TimeoutError) -> Fault:
    """What the client's exception means."""
    if isinstance(error, APIStatusError):
        return _status_fault(error.status_code, error.code, error.response.headers)
    if isinstance(error, (APITimeoutError, TimeoutError)):
        return Fault("timeout", "timed out", retry=True)
    if isinstance(error, APIConnectionError):
        if type(error.__cause__).__name__ == "ConnectError":
            return Fault("no_server", "no connection", retry=True, billed=False)
        return Fault("lost", "connection lost", retry=True)
    return Fault("odd", "endpoint answered no chat completion", permanent=True)


def _status_fault(status: int, code: str | None, headers: Mapping[str, str]) -> Fault:
    if status in (401, 403):
        return Fault("key", f"key refused ({status})", permanent=True, billed=False)
    if status == 404:
        return Fault("missing", "no such model or path (404)", permanent=True, billed=False)
    if status == 429 and code == "insufficient_quota":
        return Fault("quota", "quota spent (429)", permanent=True, billed=False)
    if status in TRANSIENT or status >= 500:
        pause_s = max(retry_after_s(headers, time.time()), used_up_s(headers))
        reason = "rate limited" if status == 429 else f"server error {status}"
        kind: Kind = "rate" if status == 429 else "server"
        return Fault(kind, reason, retry=True, billed=status in MAYBE_BILLED, pause_s=pause_s)
    if code == "context_length_exceeded":
        return Fault("refused", "prompt too long", permanent=True, billed=False)
    return Fault("refused", f"request refused ({status})", permanent=True, billed=False)


def explain(fault: Fault, config: ApiConfig) -> str:
    """The fault as a user reads it before a run: value, limit, remedy, one line."""
    url, key = base_url(config), config.key_env or "no key"
    words: dict[Kind, str] = {
        "key": f"judge.api.key_env: {url}: {fault.reason}, with {key}; export a key that this endpoint takes",
        "missing": f"judge.api.model: {config.model!r} at {url}: {fault.reason}; "
        "correct judge.api.model, or judge.api.base_url (most end in /v1)",
        "rate": f"judge.api: {url} answers 429, too many requests"
        + (f", for {fault.pause_s:.0f} s more" if fault.pause_s else "")
        + "; wait, and set judge.api.requests_per_minute and tokens_per_minute to what the account may do",
        "quota": f"judge.api: {url} answers 429, the quota of {key} is spent; add credit, or export another key",
        "html": f"judge.api.base_url: {url} answered HTML, not JSON; give the address of the API (most end in /v1)",
        "no_json": f"judge.api.base_url: {url} answered no JSON; give the address of the API (most end in /v1)",
        "odd": f"judge.api.base_url: {url}: {fault.reason}; give the address of an OpenAI-compatible API",
        "no_server": f"judge.api.base_url: no connection to {url}; start the server, or correct the address",
        "lost": f"judge.api.base_url: {url} closed the connection without an answer; look at the server",
        "timeout": f"judge.api.timeout_s: no answer from {url} in {config.timeout_s:g} s; "
        "look at the server, or raise judge.api.timeout_s",
        "server": f"judge.api: {url}: {fault.reason}; try again later, or look at the server",
        "refused": f"judge.api.model: {config.model!r} at {url}: {fault.reason} to a chat with temperature, top_p, seed and "
        "max_completion_tokens; choose a model and a server that take them",
    }
    return words[fault.kind]
