"""The traps of the environment (requirements/README.md) stay disarmed."""

import importlib
import importlib.util
import re
import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from cluster.inputs.suites.installed import INSTALL
from cluster.measure.suites.utility import EXTRA
from tests.paths import DOCS, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("name", ["torchvision", "torchaudio", "torchcodec"])
def test_cuda_only_companions_are_absent_or_work(name: str) -> None:
    if importlib.util.find_spec(name) is not None:
        assert importlib.import_module(name)


def test_the_pinned_stack_is_what_is_installed() -> None:
    found = {name: version(name).split("+")[0] for name in ("torch", "ray", "deepspeed")}
    assert found == {"torch": "2.13.0", "ray": "2.60.0", "deepspeed": "0.19.8"}


def test_what_commands_and_docs_say_to_install_are_extras_here() -> None:
    told = {EXTRA, *re.findall(r"\.\[(\w+)\]", " ".join(INSTALL.values()))}
    told.update(re.findall(r'pip install "\.\[(\w+)\]"', (DOCS / "evaluate.md").read_text()))
    assert told == {"lm_eval", "pyrit"} and told <= set(PROJECT["optional-dependencies"])
    for extra in told:
        [text] = PROJECT["optional-dependencies"][extra]
        assert Requirement(text).name == extra


def test_every_pin_of_the_lock_is_in_the_range_that_the_project_names() -> None:
    """Extras that the lock does not hold are left out: they are the user's."""
    lines = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    pins = {re.sub(r"[-_.]+", "-", name).lower(): pin for name, pin in pins.items()}
    named = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    wanted = [Requirement(text) for text in named if not text.startswith(("advgame", "torch"))]
    for one in wanted:
        assert one.specifier.contains(pins[re.sub(r"[-_.]+", "-", one.name).lower()], prereleases=True), str(one)
