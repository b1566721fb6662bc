"""`random-model FOLDER`."""

from pathlib import Path
from typing import Annotated

import typer

from protocol.errors import UserError


def random_model(
    folder: Annotated[Path, typer.Argument(help="where the model goes; must not exist")],
    texts: Annotated[Path, typer.Option(help="a JSONL seed file; the tokenizer is trained on it")],
    seed: Annotated[int, typer.Option(help="of the weights")] = 0,
) -> None:
    """Makes a model of 16 M random parameters, Qwen2.5 architecture, with a tokenizer and a chat template."""
    from cluster.inputs.home import expand_home
    from cluster.inputs.random_model import make_random_model
    from protocol.seeds import read_seeds

    folder, texts = expand_home(folder), expand_home(texts, "--texts")
    if folder.exists():
        raise UserError(f"random-model: {folder} exists; give a new name")
    n = make_random_model(folder, [s.text for s in read_seeds(texts, "--texts")[0]], seed)
    typer.echo(f"{folder}: {n / 1e6:.1f} M random parameters")
