"""What came back from an OpenAI-compatible endpoint: an answer, or a fault and what can be done about it.

Servers that call themselves compatible differ: an error comes with status 200, a text in chunks, an end without a reason, or with
one of their own. Invariants: a fault's words are ours, never the server's, so that they hold no key, prompt or answer; a text that
is no chat completion is never taken for one. Pure.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

from judge.api.limits import retry_after_s, used_up_s
from protocol.types import Finish

TRANSIENT = frozenset({408, 409, 429})  # and every 5xx
MAYBE_BILLED = frozenset({408, 502, 504})  # a gateway that answers so had passed the request on
SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance", "insufficient_credits"})
PARAMETERS = frozenset({"temperature", "top_p", "seed", "max_tokens", "max_completion_tokens"})  # that may be refused
# `finish_reason` in the words of vLLM, TGI, Anthropic, Mistral, Gemini and others, in small letters.
STOPPED = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed"})
CUT = frozenset({"length", "max_tokens", "max_output_tokens", "max_new_tokens", "model_length"})
FILTERED = frozenset({"content_filter", "safety"})

Kind = Literal[
    "key",
    "missing",
    "rate",
    "quota",
    "refused",
    "server",
    "timeout",
    "lost",
    "no_server",
    "tls",
    "proxy",
    "html",
    "no_json",
    "odd",
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

    kind: chooses what the user reads (`endpoint.explain`). reason: a few words, for verdicts and counts.
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


NO_COMPLETION = Fault("odd", "endpoint answered no chat completion", permanent=True)


def read_answer(body: bytes, headers: Mapping[str, str]) -> Answer | Fault:
    """What a response with status 200 holds. A part that is missing or of another type is a fault.

    An error inside is what it would be with a status of its own. Overloaded gateways send no choices and no error: as a 429.
    """
    if "html" in headers.get("content-type", "") or body.lstrip()[:1] == b"<":
        return Fault("html", "endpoint answered HTML, not JSON; check judge.api.base_url", permanent=True)
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return Fault("no_json", "endpoint answered no JSON", permanent=True)
    if not isinstance(said, dict):
        return NO_COMPLETION
    if said.get("error"):
        return _error_inside(said["error"], headers)
    if "choices" in said and not said["choices"]:
        return replace(_status_fault(429, None, headers), billed=bool(said.get("usage")))
    try:
        choice = said["choices"][0]
        if choice.get("error"):
            return _error_inside(choice["error"], headers)
        text, ended = _join(choice["message"]["content"]), choice.get("finish_reason") or "stop"
    except (LookupError, TypeError, AttributeError):
        return NO_COMPLETION
    if text is None or not isinstance(ended, str):
        return NO_COMPLETION
    if ended.lower() in FILTERED:
        return Fault("refused", "content filtered", permanent=True)
    if ended.lower() not in STOPPED | CUT:
        return Fault("odd", "unfinished answer")
    return Answer(text, "length" if ended.lower() in CUT else "stop", *_usage(said.get("usage")))


def _join(content: object) -> str | None:
    """A message's text: one string, or the text chunks of a list; what a model thought or drew is left out."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [chunk.get("text") if isinstance(chunk, dict) else chunk for chunk in content if _is_text(chunk)]
    known = [text for text in texts if isinstance(text, str)]
    return "".join(known) if len(known) == len(texts) else None


def _is_text(chunk: object) -> bool:
    return not isinstance(chunk, dict) or chunk.get("type", "text") in ("text", "output_text")


def _error_inside(error: Any, headers: Mapping[str, str]) -> Fault:
    """An error object, as gateways put it into a response with status 200. One that gives no status may pass."""
    fields = error if isinstance(error, dict) else {}
    code, words = fields.get("code"), {str(fields.get(key)).lower() for key in ("code", "type", "status")}
    status = next((int(str(n)) for n in (code, fields.get("status")) if str(n).isdecimal()), 0)
    if words & SPENT:
        return _status_fault(429, "insufficient_quota", headers)
    if 400 <= status < 600:
        return _status_fault(status, str(code), headers, fields.get("param"))
    if any("rate_limit" in word or "exhausted" in word for word in words):
        return _status_fault(429, None, headers)
    return Fault("server", "error in an answer", retry=True, pause_s=retry_after_s(headers, time.time()))


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
        return _status_fault(error.status_code, error.code, error.response.headers, error.param)
    if isinstance(error, (APITimeoutError, TimeoutError)):
        return Fault("timeout", "timed out", retry=True)
    if isinstance(error, APIConnectionError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error.__cause__):
            return Fault("tls", "certificate not trusted", permanent=True, billed=False)
        if type(error.__cause__).__name__ in ("ConnectError", "ProxyError"):
            return Fault("no_server", "no connection", retry=True, billed=False)
        return Fault("lost", "connection lost", retry=True)
    return NO_COMPLETION


def _status_fault(status: int, code: str | None, headers: Mapping[str, str], param: object = None) -> Fault:
    if status in (401, 403):
        return Fault("key", f"key refused ({status})", permanent=True, billed=False)
    if status == 402 or code in SPENT:
        return Fault("quota", f"quota spent ({status})", permanent=True, billed=False)
    if status == 404:
        return Fault("missing", "no such model or path (404)", permanent=True, billed=False)
    if status == 407:
        return Fault("proxy", "the proxy wants a password (407)", permanent=True, billed=False)
    if status in TRANSIENT or status >= 500:
        pause_s = max(retry_after_s(headers, time.time()), used_up_s(headers))
        reason = "rate limited" if status == 429 else f"server error {status}"
        kind: Kind = "rate" if status == 429 else "server"
        return Fault(kind, reason, retry=True, billed=status in MAYBE_BILLED, pause_s=pause_s)
    if code == "context_length_exceeded":
        return Fault("refused", "prompt too long", permanent=True, billed=False)
    what = param if param in PARAMETERS else "request"
    return Fault("refused", f"{what} refused ({status})", permanent=True, billed=False)
