"""Fixtures of all unit tests."""

from collections.abc import Iterator

import pytest

from protocol import meter
from tests.unit.meters import RecordingMeter


@pytest.fixture
def metered() -> Iterator[RecordingMeter]:
    """This process's metrics go to the meter that the test gets."""
    before, recording = meter.meter(), RecordingMeter()
    meter.install(recording)
    yield recording
    meter.install(before)
