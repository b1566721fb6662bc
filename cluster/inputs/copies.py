"""The small files that a run reads, copied into its directory: a resumed run has them where the originals are gone.

A submitted job reads seeds out of Ray's copy of its working directory, which is deleted after the job. Models are not copied (they
are large, and lie where every node finds them), nor is what the sandbox makes again.
"""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from cluster.inputs.recipe_file import SMALL_FILES, file_values, set_files
from cluster.rundir import RunDir
from protocol.recipe import Recipe


def files_to_copy(recipe: Recipe) -> dict[str, Path]:
    """The files that the recipe names, by their keys; none for what the sandbox makes."""
    return {key: Path(value).expanduser().resolve() for key, value in file_values(recipe).items()}


def copy_files(files: Mapping[str, Path], folder: Path) -> None:
    """Copies them into a new folder, each under its key. Raises `OSError`."""
    folder.mkdir()
    for key, path in files.items():
        shutil.copyfile(path, folder / _name(key))


def with_copies(recipe: Recipe, run_dir: RunDir, given: Collection[str]) -> Recipe:
    """The recipe of a resumed run, reading its own copies, save where `given` names the key: that file is another one."""
    own = {key: run_dir.inputs / _name(key) for key in SMALL_FILES if key in file_values(recipe) and key not in given}
    return set_files(recipe, {key: str(path) for key, path in own.items() if path.is_file()})


def _name(key: str) -> str:
    return f"{key}.jsonl"
