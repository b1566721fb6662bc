"""The ledger of an API judge: what it has spent, in tokens and money, and the budget that it cannot exceed.

Before a request is sent, the most that it can cost is reserved; afterwards it is settled at what it did cost. The reservation is in
the file before the request leaves. If the process dies, the next one counts what was in flight as spent.

Invariants:
- settled and reserved together never exceed `budget` or `budget_tokens`, over any number of restarts;
- one process at a time spends from a file (it holds a lock);
- a reservation that cannot be written is not sent. A settlement that cannot be written counts in this process; the file keeps the
  reservation, which is never less;
- money is counted in whole 1e-12 of the currency, so that no sum depends on its order.

The file is JSON lines, appended to and never rewritten, except that a torn record is cut off. What is written survives the process
at once, and a power cut after `FSYNC_S`. It holds numbers only: no prompt, no answer, no key.
"""

import json
import math
import os
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from judge.errors import JudgeUnavailable
from judge.stats import ApiUsage
from protocol.errors import UserError
from protocol.locks import try_lock
from protocol.recipe import ApiConfig

FSYNC_S = 1.0  # a batch: an fsync for each request would cost more than the request's own bookkeeping
PICO = 10**12
BUDGET_SPENT = "budget spent"
UNWRITTEN = "ledger cannot be written"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens and their price in 1e-12 of the budget's currency."""

    tokens_in: int = 0
    tokens_out: int = 0
    cost: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out, self.cost + other.cost)

    def __sub__(self, other: "Amount") -> "Amount":
        return self + Amount(-other.tokens_in, -other.tokens_out, -other.cost)

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


class Ledger:
    """Reservations and settlements against a budget. Use it from one thread.

    Args:
        config: prices and budgets are used. Both may change between runs; what was spent keeps its price.
        path: the file; None keeps the account in memory only.

    Raises:
        UserError: another process holds the file, or it is no ledger.
    """

    def __init__(self, config: ApiConfig, path: Path | None) -> None:
        # A million tokens at `price`: a token costs price * 1e-6, so price * 1e6 in units of 1e-12. Rounded up.
        self._price_in, self._price_out = (math.ceil(p * 10**6) for p in (config.price_in, config.price_out))
        self._budget = None if config.budget is None else math.floor(config.budget * PICO)
        self._budget_tokens = config.budget_tokens
        self._spent, self._reserved = Amount(), Amount()
        self._open: dict[int, Amount] = {}
        self._requests = self._retries = self._unmetered = 0
        self._file: FileIO | None = None
        self._size = 0  # of the file's whole records
        self._synced_at = time.monotonic()
        if path is not None:
            self._file = _open_locked(path)
            self._load(path)

    def reserve(self, tokens_in: int, tokens_out: int, retry: bool = False) -> int | None:
        """Sets aside what one request can cost at most, and counts the request.

        Returns:
            The reservation's number, for `settle`; None if it fits only after requests in flight have cost less than reserved.

        Raises:
            JudgeUnavailable: no room even then: the budget is spent. Or the file cannot be written; nothing is reserved then.
        """
        amount = self._amount(tokens_in, tokens_out)
        if not self._fits(self._spent + amount):
            raise JudgeUnavailable(BUDGET_SPENT, permanent=True)
        if not self._fits(self._spent + self._reserved + amount):
            return None
        number = self._requests
        self._write({"op": "reserve", "id": number, **_fields(amount), "retry": retry})
        self._apply_reserve(number, amount, retry)
        return number

    def settle(self, number: int, tokens_in: int, tokens_out: int) -> None:
        """The request took so many tokens; zeros if it was refused and costs nothing.

        Raises:
            JudgeUnavailable: it is settled, but the file cannot be written.
        """
        self._settle(number, self._amount(tokens_in, tokens_out), True)

    def settle_unmetered(self, number: int) -> None:
        """The request's usage is unknown: all that was reserved counts as spent. Raises as `settle`."""
        self._settle(number, self._open[number], False)

    def usage(self) -> ApiUsage:
        """Since the file was begun; whether a request got its answer is not the ledger's to know."""
        taken = self._spent + self._reserved
        return ApiUsage(
            requests=self._requests,
            retries=self._retries,
            unmetered=self._unmetered,
            tokens_in=self._spent.tokens_in,
            tokens_out=self._spent.tokens_out,
            cost=self._spent.cost / PICO,
            budget_left=None if self._budget is None else (self._budget - taken.cost) / PICO,
            budget_tokens_left=None if self._budget_tokens is None else self._budget_tokens - taken.tokens,
        )

    def close(self) -> None:
        """Syncs and closes the file. What is still reserved counts as spent when it is opened again."""
        if self._file is None:
            return
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()
            self._file = None

    def _amount(self, tokens_in: int, tokens_out: int) -> Amount:
        return Amount(tokens_in, tokens_out, tokens_in * self._price_in + tokens_out * self._price_out)

    def _fits(self, total: Amount) -> bool:
        return (self._budget is None or total.cost <= self._budget) and (
            self._budget_tokens is None or total.tokens <= self._budget_tokens
        )

    def _settle(self, number: int, amount: Amount, metered: bool) -> None:
        if number not in self._open:
            raise ValueError(f"reservation {number} is not open")
        # In memory first: a full disk must not leave the reservation open, and others waiting for its room, for ever.
        self._apply_settle(number, amount, metered)
        self._write({"op": "settle", "id": number, **_fields(amount), "metered": metered})

    def _apply_reserve(self, number: int, amount: Amount, retry: bool) -> None:
        self._open[number] = amount
        self._reserved += amount
        self._requests = number + 1
        self._retries += retry

    def _apply_settle(self, number: int, amount: Amount, metered: bool) -> None:
        self._reserved -= self._open.pop(number)
        self._spent += amount
        self._unmetered += not metered

    def _write(self, record: dict[str, Any]) -> None:
        """Writes a record at once, and syncs at most every `FSYNC_S`. A torn record is cut off by the next write.

        Raises:
            JudgeUnavailable: the record could not be written whole.
        """
        if self._file is None:
            return
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            if os.fstat(self._file.fileno()).st_size != self._size:
                os.ftruncate(self._file.fileno(), self._size)
            whole = self._file.write(line) == len(line)  # a disk that fills up takes a part and raises nothing
            if whole and time.monotonic() - self._synced_at >= FSYNC_S:
                os.fsync(self._file.fileno())
                self._synced_at = time.monotonic()
        except OSError:
            whole = False
        if not whole:
            raise JudgeUnavailable(UNWRITTEN)
        self._size += len(line)

    def _load(self, path: Path) -> None:
        """Reads what earlier processes wrote, and charges the reservations that they left open."""
        whole = path.read_bytes()
        if not whole.endswith(b"\n"):  # a record cut short by a crash: its request was not sent
            whole = whole[: whole.rfind(b"\n") + 1]
            os.truncate(path, len(whole))
        self._size = len(whole)
        for n, line in enumerate(whole.splitlines()):
            try:
                self._replay(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{path}:{n + 1}: not a record of a version {VERSION} ledger; "
                    "move the file away to begin a new account, or give it back as it was"
                ) from None
        if not whole:
            self._write({"op": "open", "version": VERSION, "cost_unit": "1e-12"})
        for number in list(self._open):
            self.settle_unmetered(number)

    def _replay(self, record: dict[str, Any]) -> None:
        op = record["op"]
        if op == "open":
            if record["version"] != VERSION:
                raise ValueError("unknown version")
            return
        amount = Amount(int(record["in"]), int(record["out"]), int(record["cost"]))
        if op == "reserve":
            self._apply_reserve(int(record["id"]), amount, bool(record["retry"]))
        elif op == "settle":
            self._apply_settle(int(record["id"]), amount, bool(record["metered"]))
        else:
            raise ValueError("unknown record")


def _fields(amount: Amount) -> dict[str, int]:
    return {"in": amount.tokens_in, "out": amount.tokens_out, "cost": amount.cost}


def _open_locked(path: Path) -> FileIO:
    """Opens the file for appending and takes its lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = FileIO(path, "a")  # unbuffered: what failed once must not be written by a later record's flush
    if not try_lock(file.fileno(), path):
        file.close()
        raise UserError(
            f"{path}: another process is spending from this ledger; wait for it to end, or give this one its own"
        )
    return file
