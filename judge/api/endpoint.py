"""Requests to an OpenAI-compatible endpoint, and what a person is told of one that failed before a run.

Pure, except that the key is read from the environment. It sends nothing (`client` does), and reads no responses (`outcome` does).
"""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from judge.api.network import is_local, proxy_variable
from judge.api.outcome import Fault, Kind
from protocol.errors import UserError
from protocol.recipe import ApiConfig
from protocol.types import Ask, Message

NO_KEY = "EMPTY"  # what a server that wants no key is sent
MESSAGE_TOKENS, CHAT_TOKENS = 16, 256  # at most, of a chat template: around each message, and around all of them
IN_THE_WAY: frozenset[Kind] = frozenset(  # what a proxy answers, or how it fails, for an address that it does not know
    ("key", "missing", "refused", "server", "timeout", "lost", "no_server", "proxy", "html", "no_json", "odd")
)
UNREACHED: frozenset[Kind] = frozenset(("timeout", "lost", "no_server", "proxy"))


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


def make_payload(config: ApiConfig, ask: Ask, seed: int, left_out: Collection[str] = ()) -> dict[str, Any]:
    """Keyword arguments of the client's `chat.completions.create`.

    The limit's name is by default `max_completion_tokens`, because OpenAI's newer models refuse the older `max_tokens`, vLLM calls
    it deprecated, and both together are refused. The pattern goes where vLLM's server reads it; other servers refuse it with a
    message.

    Args:
        left_out: parameters by the recipe's names (`JudgeSamplingConfig.left_out`).
    """
    sampling = {
        "temperature": ("temperature", ask.sampling.temperature),
        "top_p": ("top_p", ask.sampling.top_p),
        "max_new_tokens": (config.max_tokens_name, ask.sampling.max_new_tokens),
        "seeded": ("seed", seed),
    }
    arguments: dict[str, Any] = {"model": config.model, "messages": list(ask.messages)}
    arguments |= {name: value for key, (name, value) in sampling.items() if key not in left_out}
    if ask.pattern is not None:
        arguments["extra_body"] = {"structured_outputs": {"regex": ask.pattern}}
    return arguments


def explain(fault: Fault, config: ApiConfig) -> str:
    """The fault as a user reads it before a run: value, limit, remedy, one line."""
    url, key = base_url(config), config.key_env or "no key"
    host, proxy = urlsplit(url).hostname or "", proxy_variable(url)
    if proxy is not None and fault.kind in IN_THE_WAY and is_local(host):
        return (
            f"judge.api.base_url: {url}: {fault.reason}, from a proxy that is in the way: {proxy} names it; add {host} to "
            "no_proxy, or start the server if it needs the proxy"
        )
    through = f", through the proxy that {proxy} names" if proxy is not None and fault.kind in UNREACHED else ""
    words: dict[Kind, str] = {
        "key": f"judge.api.key_env: {url}: {fault.reason}, with {key}; export a key that this endpoint takes",
        "missing": f"judge.api.model: {config.model!r} at {url}: {fault.reason}; "
        "correct judge.api.model, or judge.api.base_url (most end in /v1)",
        "rate": f"judge.api: {url} answers 429, too many requests"
        + (f", for {fault.pause_s:.0f} s more" if fault.pause_s else "")
        + "; wait, and set judge.api.requests_per_minute and tokens_per_minute to what the account may do",
        "quota": f"judge.api: {url}: {fault.reason}: the quota of {key} is spent; add credit, or export another key",
        "html": f"judge.api.base_url: {url} answered HTML, not JSON; give the address of the API (most end in /v1)",
        "no_json": f"judge.api.base_url: {url} answered no JSON; give the address of the API (most end in /v1)",
        "odd": f"judge.api.base_url: {url}: {fault.reason}; give the address of an OpenAI-compatible API",
        "no_server": f"judge.api.base_url: no connection to {url}{through}; start the server, or correct the address",
        "tls": f"judge.api.base_url: the certificate of {url} is not trusted; name the file of its authority in SSL_CERT_FILE",
        "proxy": f"judge.api.base_url: {url}: {fault.reason}{through}; put the password into the variable",
        "lost": f"judge.api.base_url: {url} closed the connection without an answer{through}; look at the server",
        "timeout": f"judge.api.timeout_s: no answer from {url} in {config.timeout_s:g} s{through}; "
        "look at the server, or raise judge.api.timeout_s",
        "server": f"judge.api: {url}: {fault.reason}; try again later, or look at the server",
        "refused": f"judge.api.model: {config.model!r} at {url}: {fault.reason} to a chat with temperature, top_p, seed and "
        f"{config.max_tokens_name}; choose a model and a server that take them",
    }
    return words[fault.kind]
