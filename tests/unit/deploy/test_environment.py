"""The traps of the environment (requirements/README.md) stay disarmed."""

import importlib
import importlib.util
from importlib.metadata import version

import pytest


@pytest.mark.parametrize("name", ["torchvision", "torchaudio", "torchcodec"])
def test_cuda_only_companions_are_absent_or_work(name: str) -> None:
    if importlib.util.find_spec(name) is not None:
        assert importlib.import_module(name)


def test_the_pinned_stack_is_what_is_installed() -> None:
    found = {name: version(name).split("+")[0] for name in ("torch", "ray", "deepspeed")}
    assert found == {"torch": "2.13.0", "ray": "2.60.0", "deepspeed": "0.19.8"}
