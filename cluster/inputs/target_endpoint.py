"""An endpoint that `evaluate` is given, as URL#MODEL, and what its options say of requests to it. Sends nothing."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urldefrag

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
