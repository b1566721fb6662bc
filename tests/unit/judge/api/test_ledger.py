"""The account of an API judge: the budget holds whatever happens in between."""

import json
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from judge.api.ledger import Ledger
from judge.errors import JudgeUnavailable
from judge.stats import ApiUsage
from protocol.errors import UserError
from protocol.recipe import ApiConfig

PRICED = ApiConfig(price_in=0.15, price_out=0.60)


def crash(ledger: Ledger) -> None:
    """What the operating system does for a process that dies."""
    assert ledger._file is not None
    ledger._file.close()


def test_a_request_is_paid_by_what_it_used(tmp_path: Path) -> None:
    with closing(Ledger(PRICED.model_copy(update={"budget": 1.0}), tmp_path / "ledger.jsonl")) as ledger:
        number = ledger.reserve(1_000_000, 500_000)
        assert number is not None
        assert ledger.usage().budget_left == pytest.approx(1.0 - 0.15 - 0.30)
        ledger.settle(number, 600_000, 100_000)
        assert ledger.usage() == ApiUsage(
            requests=1,
            retries=0,
            unmetered=0,
            tokens_in=600_000,
            tokens_out=100_000,
            cost=0.15,  # 0.6 x 0.15 + 0.1 x 0.60
            budget_left=0.85,
            budget_tokens_left=None,
        )


@pytest.mark.parametrize("config", [ApiConfig(budget_tokens=100), ApiConfig(budget=1e-4, price_in=1.0, price_out=1.0)])
def test_no_request_that_could_pass_the_budget(config: ApiConfig) -> None:
    ledger = Ledger(config, None)
    first = ledger.reserve(50, 40)
    assert first is not None
    assert ledger.reserve(5, 6) is None  # fits if the first turns out cheaper
    with pytest.raises(JudgeUnavailable, match="budget spent") as refused:
        ledger.reserve(50, 51)
    assert refused.value.permanent
    ledger.settle(first, 50, 39)
    second = ledger.reserve(5, 6)
    assert second is not None
    ledger.settle_unmetered(second)
    with pytest.raises(JudgeUnavailable, match="budget spent"):
        ledger.reserve(1, 0)
    assert ledger.usage().unmetered == 1


def test_the_account_goes_on_after_a_restart_and_a_crash_costs_what_was_in_flight(tmp_path: Path) -> None:
    path, config = tmp_path / "deep" / "ledger.jsonl", ApiConfig(budget_tokens=1000)
    ledger = Ledger(config, path)
    done, open_ = ledger.reserve(100, 100), ledger.reserve(200, 100, retry=True)
    assert done is not None
    assert open_ is not None
    ledger.settle(done, 10, 20)
    crash(ledger)
    for _ in range(2):  # the second opening finds the first one's settlement
        with closing(Ledger(config, path)) as again:
            used = again.usage()
            assert (used.requests, used.retries, used.unmetered) == (2, 1, 1)
            assert (used.tokens_in, used.tokens_out, used.budget_tokens_left) == (210, 120, 670)


def test_a_record_that_was_cut_short_is_no_request(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with closing(Ledger(ApiConfig(), path)) as ledger:
        number = ledger.reserve(1, 1)
        assert number is not None
        ledger.settle(number, 1, 1)
    path.write_bytes(path.read_bytes() + b'{"op":"reserve","id":1,"in":9')
    with closing(Ledger(ApiConfig(), path)) as ledger:
        assert ledger.usage().requests == 1
        assert ledger.reserve(1, 1) == 1
    assert all(json.loads(line) for line in path.read_text().splitlines())


@contextmanager
def full_disk(path: Path, room: int) -> Iterator[None]:
    """Files cannot grow beyond the ledger's size and `room` more bytes. The operating system says so, as it does of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 20])  # nothing gets there, or half a record
def test_a_full_disk_stops_the_spending_and_neither_holds_room_back_nor_spoils_the_file(
    tmp_path: Path, room: int
) -> None:
    path, config = tmp_path / "ledger.jsonl", ApiConfig(budget_tokens=1000)
    with closing(Ledger(config, path)) as ledger:
        first, second = ledger.reserve(300, 100), ledger.reserve(300, 100)
        assert first is not None and second is not None
        with full_disk(path, room):
            with pytest.raises(JudgeUnavailable, match="ledger cannot be written") as refused:
                ledger.settle(first, 10, 10)
            assert ledger.usage().budget_tokens_left == 1000 - 20 - 400  # settled all the same: nobody waits for it
            with pytest.raises(JudgeUnavailable, match="ledger cannot be written"):
                ledger.reserve(100, 100)
            assert ledger.usage().budget_tokens_left == 1000 - 20 - 400  # not reserved, and so not sent
        assert not refused.value.permanent
        ledger.settle(second, 30, 0)
        third = ledger.reserve(1, 1)
        assert third == 2
        ledger.settle(third, 1, 1)
    with closing(Ledger(config, path)) as again:
        assert (
            again.usage().budget_tokens_left == 1000 - 400 - 30 - 2
        )  # what was not written down costs its reservation
        assert again.usage().unmetered == 1


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"op":"open","version":2}', '{"op":"settle","id":5,"in":1,"out":1,"cost":0}']
)
def test_a_file_that_is_no_ledger_is_refused_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(ApiConfig(), path).close()
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"ledger\.jsonl:2: not a record of a version 1 ledger"):
        Ledger(ApiConfig(), path)


def test_two_processes_do_not_spend_from_one_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with closing(Ledger(ApiConfig(), path)), pytest.raises(UserError, match="another process is spending"):
        Ledger(ApiConfig(), path)
    Ledger(ApiConfig(), path).close()


Move = tuple[str, int, int]
MOVES = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle", "lose", "crash"]), st.integers(0, 400), st.integers(0, 400))
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(moves=MOVES, price_in=st.floats(0, 90), price_out=st.floats(0, 90), budget=st.floats(1e-5, 0.1))
def test_spending_never_passes_the_budget(
    tmp_path_factory: pytest.TempPathFactory, moves: list[Move], price_in: float, price_out: float, budget: float
) -> None:
    """Any interleaving of reservations, settlements (at most what was reserved), lost answers and crashes."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    config = ApiConfig(budget=budget, budget_tokens=2000, price_in=price_in, price_out=price_out)
    ledger, open_, charged = Ledger(config, path), dict[int, tuple[int, int]](), 0
    for move, a, b in moves:
        if move == "reserve":
            try:
                number = ledger.reserve(a, b)
            except JudgeUnavailable:
                continue
            if number is not None:
                open_[number] = (a, b)
        elif move == "crash":
            crash(ledger)
            charged += sum(sum(amounts) for amounts in open_.values())
            open_ = {}
            ledger = Ledger(config, path)
        elif open_:
            number, (most_in, most_out) = open_.popitem()
            if move == "settle":
                used = (min(a, most_in), min(b, most_out))
                ledger.settle(number, *used)
                charged += sum(used)
            else:
                ledger.settle_unmetered(number)
                charged += most_in + most_out
        account = ledger.usage()
        spent_in, spent_out, cost = account.tokens_in, account.tokens_out, account.cost
        assert spent_in + spent_out == charged <= 2000
        assert cost <= budget
        assert cost == pytest.approx((spent_in * price_in + spent_out * price_out) / 1e6, abs=2e-9)
        for left in ("budget_left", "budget_tokens_left"):
            assert (getattr(account, left) or 0) >= 0
    ledger.close()
