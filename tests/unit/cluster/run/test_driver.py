"""What the driver says of itself at its end: alerts miss a driver that ended without a word, and no other."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock

import pytest

from cluster.observe.run_metrics import RunMetrics
from cluster.run import driver
from cluster.run.session import Interrupted
from cluster.run.states import RunFailed
from protocol.meter import Silent, install
from tests.unit.meters import RecordingMeter


@pytest.fixture
def meter() -> Iterator[RecordingMeter]:
    recording = RecordingMeter()
    install(recording)
    yield recording
    install(Silent())


@pytest.mark.parametrize(
    ("end", "phase"),
    [(Interrupted("SIGTERM"), "ending"), (asyncio.CancelledError(), "ending"), (RunFailed("no engine"), "starting")],
)
def test_an_interrupted_run_says_that_it_ends_and_a_failed_one_is_missed(
    end: BaseException, phase: str, meter: RecordingMeter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(driver, "build", MagicMock())
    monkeypatch.setattr(driver, "take_down", MagicMock())
    monkeypatch.setattr(driver, "start_engines", AsyncMock(side_effect=end))
    monkeypatch.setattr(driver, "save_learners", saves := AsyncMock())
    run = object.__new__(driver.Run)
    for part in ("plan", "group", "progress", "history", "lessons", "measurements", "newest", "sinks"):
        setattr(run, f"_{part}", MagicMock())
    run._poll, run._metrics = MagicMock(close=AsyncMock()), RunMetrics(tmp_path)
    run._poll.stats.publisher.players = {"attacker": SimpleNamespace(step=3)}
    with pytest.raises(type(end)):
        run.drive().send(None)  # no loop: it would take the interruption for its own
    assert saves.await_args.args[1] == {"attacker": 3}, "however it ends, the learners' checkpoints come first"
    assert [key[-1] for key, value in meter.gauges.items() if key[0] == "phase" and value == 1] == [phase]
