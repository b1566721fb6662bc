"""Rate limits of an API: requests and tokens a minute, and the pauses that its server demands.

Pure: the clock is passed in, nothing sleeps here. Each limit is a token bucket that holds a quarter of a minute's allowance and is
refilled with the other three quarters over the minute, so that a full minute's work is never sent at once and then keeps its
callers waiting past their deadlines.

Invariants:
- in any minute at most the limit is admitted (a request larger than the bucket waits until it is full and leaves a debt);
- tokens are counted as estimated until the response says how many there were;
- a pause applies to every caller, and a shorter one never ends a longer one.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

MINUTE_S = 60.0
BURST = 0.25  # of a limit: less would admit too few of the long answers that a judge reserves, more would make the refill too slow
SLACK = 1e-6  # of one request or token, so that rounding never asks for a wait that does not move the clock
PAUSE_MAX_S = 120.0  # a server may ask for hours (a daily quota): ask again after this long

_UNIT_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


class Bucket:
    """Admits at most `per_minute` units in any minute, evenly but for a first burst of a quarter of them."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._capacity = BURST * per_minute
        self._per_s = (per_minute - self._capacity) / MINUTE_S
        self._level, self._at = self._capacity, now

    def wait_s(self, now: float, units: float) -> float:
        """Seconds from `now` until `units` fit; 0 if they do."""
        self._level = min(self._capacity, self._level + max(0.0, now - self._at) * self._per_s)
        self._at = max(now, self._at)
        missing = min(units, self._capacity) - self._level
        return missing / self._per_s if missing > SLACK else 0.0

    def take(self, units: float) -> None:
        """Counts `units`; negative ones are given back."""
        self._level = min(self._capacity, self._level - units)


class RateLimits:
    """The recipe's limits and the server's pauses, together. None is no limit.

    Args:
        now: the clock's present time in seconds; every later `now` is of the same clock.
    """

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None, now: float) -> None:
        self._requests = Bucket(requests_per_minute, now) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, now) if tokens_per_minute else None
        self._paused_until = now

    def admit(self, now: float, tokens: int) -> float:
        """Counts one request of about `tokens` tokens and gives 0; or the seconds to wait before asking again."""
        wait = max(
            self._paused_until - now,
            self._requests.wait_s(now, 1) if self._requests else 0.0,
            self._tokens.wait_s(now, tokens) if self._tokens else 0.0,
        )
        if wait > 0:
            return wait
        if self._requests:
            self._requests.take(1)
        if self._tokens:
            self._tokens.take(tokens)
        return 0.0

    def settle(self, admitted: int, used: int) -> None:
        """A request that was admitted with `admitted` tokens took `used`."""
        if self._tokens:
            self._tokens.take(used - admitted)

    def pause(self, now: float, seconds: float) -> None:
        """Admits no request for `seconds` (`PAUSE_MAX_S` at most)."""
        self._paused_until = max(self._paused_until, now + min(seconds, PAUSE_MAX_S))


def parse_duration_s(text: str) -> float:
    """Seconds in `1.5`, `20ms`, `6m0s` or `1h2m`; 0 for anything else."""
    text = text.strip()
    parts = _DURATION.findall(text)
    if "".join(value + unit for value, unit in parts) == text:
        return sum(float(value) * _UNIT_S[unit] for value, unit in parts)
    return float(text) if re.fullmatch(r"\d+(?:\.\d+)?", text) else 0.0


def retry_after_s(headers: Mapping[str, str], now: float) -> float:
    """What `Retry-After` (seconds or an HTTP date, RFC 9110 10.2.3) asks for; 0 without a readable one. `now` is Unix time."""
    if milliseconds := parse_duration_s(headers.get("retry-after-ms", "")):
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    if seconds := parse_duration_s(text):
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except ValueError:
        return 0.0


def used_up_s(headers: Mapping[str, str]) -> float:
    """How long until a spent allowance returns, by the `x-ratelimit-*` headers that OpenAI's and similar servers send."""
    waits = [
        parse_duration_s(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return max(waits, default=0.0)
