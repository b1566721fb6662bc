"""`~` on the command line is the home folder, where the shell leaves it alone, too; a home that is not there is one line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli.app import app
from cluster.inputs.home import expand_home
from cluster.study.__main__ import app as study
from protocol.errors import UserError
from tests.paths import ROOT

NOBODY = "~nobody-here/x"
RULES = ROOT / "deploy/recipes/sandbox.yaml"
EVALUATE = ["evaluate", "http://127.0.0.1:9/v1#m", "--judge", str(RULES), "--out", "out"]
COMMANDS = [
    ["plan", NOBODY],
    ["train", "--resume", NOBODY],
    ["replay", NOBODY],
    ["replay", "x", "--export", f"{NOBODY}.jsonl"],
    ["metrics", NOBODY],
    ["calibrate", str(RULES), "--labels", NOBODY],
    ["calibrate", str(RULES), "--labels", "sandbox", "--out", NOBODY],
    ["evaluate", NOBODY, "--suite", "x", "--out", "out"],
    [*EVALUATE, "--suite", NOBODY],
    [*EVALUATE, "--suite", f"plain:{NOBODY}"],
    ["random-model", NOBODY, "--texts", "x"],
    ["models", "gguf", NOBODY, "made"],
    ["models", "smollm2", "made", "--wheel", NOBODY],
]


def fail(command: list[str], program: object = app) -> str:
    """What a command says when it refuses."""
    refused = CliRunner().invoke(program, command).exception  # type: ignore[arg-type]
    assert isinstance(refused, UserError), refused
    assert "\n" not in str(refused)
    return str(refused)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_home_that_is_not_there_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = fail(command)
    assert said.endswith(": ~nobody-here is no user's home here; write the path out") and NOBODY in said
    assert not [*tmp_path.iterdir()], "nothing is written"


def test_nor_is_it_in_a_study(tmp_path: Path) -> None:
    assert (
        fail(["--docs", NOBODY], study) == f"--docs: {NOBODY}: ~nobody-here is no user's home here; write the path out"
    )


def test_what_commands_write_and_read_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "rows.jsonl").write_text("")
    for command in (
        ["random-model", "~/there", "--texts", "x"],
        ["models", "gguf", "x.gguf", "~/there"],
        ["models", "smollm2", "~/there"],
        ["replay", "x", "--export", "~/there/rows.jsonl"],
    ):
        said = fail(command)
        assert f"{tmp_path}/there" in said and " exists" in said, said
    assert f"{tmp_path}/none.gguf" in fail(["models", "gguf", "~/none.gguf", str(tmp_path / "made")])
    assert f"{tmp_path}/none.csv" in fail([*EVALUATE, "--suite", "plain:~/none.csv"])


def test_other_paths_stay_as_they_are() -> None:
    for path in ("a/b", "/a/~", "a~b"):
        assert expand_home(path) == Path(path)
