"""An endpoint that `evaluate` is given, as URL#MODEL, and what its options say of requests to it. Sends nothing."""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urldefrag, urlsplit

from protocol.errors import UserError
from protocol.recipe import ApiConfig

AT_ONCE = 16  # requests to an endpoint, as `judge.api.concurrency`
RETRIES = 5  # of a request, as `judge.api.retries`
LEAVE_OUT = {  # by a request's parameter the key of the recipe's sampling
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seeded",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
}
_REFUSED = re.compile(rf"(?:request|{'|'.join(LEAVE_OUT)}) refused \(")  # what is asked, not who asks


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """What the options say of endpoints: `key_env` "" sends no key; `leave_out`: parameters of a request, by its names."""

    key_env: str = ""
    at_once: int = AT_ONCE
    retries: int = RETRIES
    timeout_s: float = 60.0
    leave_out: tuple[str, ...] = ()
    max_tokens_name: str = "max_completion_tokens"


def is_endpoint(named: str) -> bool:
    """Whether a target is an address."""
    return named.startswith(("http://", "https://"))


def read_endpoint(named: str, where: str, options: EndpointOptions) -> tuple[ApiConfig, frozenset[str]]:
    """An endpoint, and the parameters that it is not sent, by the recipe's names.

    Args:
        named: as on the command line.
        where: the argument that named it, for messages.

    Raises:
        UserError: it is no address and model, or an option cannot be used.
    """
    url, model = urldefrag(named)
    if not model:
        raise UserError(f"{where}: {url} without the name of a model; write it behind a #, as in {url}#MODEL")
    if options.key_env and not os.environ.get(options.key_env, "").strip():
        raise UserError(
            f"--key-env: {options.key_env} is not set in the environment; export it, or leave --key-env out"
        )
    api = ApiConfig(
        base_url=url,
        model=model,
        key_env=options.key_env,
        concurrency=options.at_once,
        retries=options.retries,
        timeout_s=options.timeout_s,
        max_tokens_name=_max_tokens_name(options.max_tokens_name),
    )
    from judge.api.endpoint import base_url

    base_url(api)
    return api, _left_out(options.leave_out)


def hint_at(reason: str, api: ApiConfig) -> str:
    """What may be done about an endpoint that does not answer, in brackets; "" where nothing more than the reason is known.

    Args:
        reason: in the words of `judge.api.outcome`, which are ours.
    """
    from judge.api.network import is_local, proxy_variable

    if _REFUSED.match(reason):
        return f" (--leave-out leaves a parameter out of the requests: {', '.join(LEAVE_OUT)})"
    url = api.base_url or ""
    proxy, host = proxy_variable(url), urlsplit(url).hostname or ""
    if proxy is None or reason.startswith("rate limited"):
        return ""
    if is_local(host):
        return f" (from a proxy that is in the way: {proxy} names it; add {host} to no_proxy)"
    return f" (through the proxy that {proxy} names)"


def _max_tokens_name(named: str) -> Literal["max_completion_tokens", "max_tokens"]:
    match named:
        case "max_completion_tokens" | "max_tokens":
            return named
    raise UserError(f"--max-tokens-name: {named} is neither max_completion_tokens nor max_tokens; pick one of them")


def _left_out(names: Collection[str]) -> frozenset[str]:
    for name in names:
        if name not in LEAVE_OUT:
            raise UserError(f"--leave-out: {name} is none of {', '.join(LEAVE_OUT)}; pick one of them")
    return frozenset(LEAVE_OUT[name] for name in names)
