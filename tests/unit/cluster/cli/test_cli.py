"""What a user can get wrong on the command line: one line on standard error, exit status 2, nothing written."""

import json
import socket
import sys
from pathlib import Path

import pytest

from cluster.cli.app import main
from tests.net import free_port
from tests.paths import ROOT

SANDBOX = str(ROOT / "deploy" / "recipes" / "sandbox.yaml")


def model_folder(path: Path, *leave_out: str) -> str:
    """A folder that looks like a Hugging Face model, as far as a check without torch can see.

    `leave_out` names files that are missing, or as `name:text` what they hold instead.
    """
    files = {
        "config.json": json.dumps({"max_position_embeddings": 4096}),
        "model.safetensors": "\x02" + "\0" * 7 + "{}",  # a header without tensors
        "tokenizer.json": "{}",
        "tokenizer_config.json": "{}",
        "chat_template.jinja": "{{ messages }}",
    }
    path.mkdir()
    files |= dict(change.split(":", 1) for change in leave_out if ":" in change)
    for name, text in files.items():
        if name not in leave_out:
            (path / name).write_text(text)
    return str(path)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    monkeypatch.setattr(sys, "argv", ["cluster", *args])
    with pytest.raises(SystemExit) as e:
        main()
    error = capsys.readouterr().err
    assert e.value.code == 2
    assert error.count("\n") == 1 and error.startswith("advgame: ") and "Traceback" not in error
    return error


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "none.yaml"], "recipe: none.yaml cannot be read"),
        (["train", SANDBOX, "--set", "game.respones=2"], "unknown key; did you mean game.responses?"),
        (["train", SANDBOX, "--set", "game.responses=0"], "game.responses: 0 is below 1; set it to at least 1"),
        (["train", SANDBOX, "--set", "replay.max_staleness=-1"], "replay.max_staleness: -1 is below 0"),
        (["train"], "give either a recipe file or --resume RUN"),
        (["train", "--resume", "/nonexistent"], "is no run"),
        (["train", SANDBOX, "--set", "replay.capacity_rows=1"], "replay.capacity_rows: 1 is below"),
        (
            ["train", SANDBOX, "--set", "run.dir=~nobody-here/x"],
            "run.dir: ~nobody-here/x: ~nobody-here is no user's home here",
        ),
    ],
)
def test_recipe_and_option_mistakes(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in run(capsys, monkeypatch, *args)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["config.json"], "has no config.json"),
        (["model.safetensors"], "has no weights"),
        (["config.json:{"], "config.json is no JSON object"),
        (["model.safetensors:version https://git-lfs.github.com/spec/v1"], "has no weights"),
        (["tokenizer.json", "tokenizer_config.json"], "has no tokenizer"),
        (["chat_template.jinja"], "has no chat template"),
    ],
)
def test_an_incomplete_model_folder(
    missing: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"prompt": "fix a bike", "category": "benign"}\n')
    good, bad = model_folder(tmp_path / "good"), model_folder(tmp_path / "bad", *missing)
    args = [f"--set={k}={v}" for k, v in {"models.attacker.path": good, "models.defender.path": bad}.items()]
    files = [f"--set=seeds.train={seeds}", "--set=seeds.heldout=null", f"--set=run.dir={tmp_path / 'runs'}"]
    error = run(capsys, monkeypatch, "train", SANDBOX, *args, *files)
    assert "models.defender.path: " in error and message in error
    assert not (tmp_path / "runs").exists()


def test_a_model_that_is_too_short_for_the_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"prompt": "fix a bike", "category": "benign"}\n')
    model = model_folder(tmp_path / "m")
    args = [f"--set=models.{p}.path={model}" for p in ("attacker", "defender")]
    more = [f"--set=seeds.train={seeds}", "--set=seeds.heldout=null", "--set=generation.max_model_len=9000"]
    assert "takes 4096 tokens" in run(capsys, monkeypatch, "train", SANDBOX, *args, *more)


@pytest.mark.parametrize("text", ["", "no json\n", '{"prompt": "x", "category": "odd"}\n'])
def test_a_seed_file_without_a_seed(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(text)
    error = run(capsys, monkeypatch, "train", SANDBOX, f"--set=seeds.train={seeds}", f"--set=run.dir={tmp_path}")
    assert "has no seed in it" in error
    assert [p.name for p in tmp_path.iterdir()] == ["seeds.jsonl"]


def test_a_run_name_that_exists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").mkdir()
    error = run(capsys, monkeypatch, "train", SANDBOX, f"--set=run.dir={tmp_path}", "--set=run.name=taken")
    assert "run.name: taken exists" in error
    assert not list((tmp_path / "taken").iterdir())


def test_watch_needs_prometheus_and_no_cluster(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "watch: no prometheus on the PATH; install it" in run(capsys, monkeypatch, "watch", SANDBOX)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:6379")
    assert "watch: RAY_ADDRESS is set" in run(capsys, monkeypatch, "watch", SANDBOX)


def test_watch_whose_port_is_taken_leaves_no_run_behind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "prometheus"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = run(capsys, monkeypatch, "watch", SANDBOX, f"--port={port}", f"--set=run.dir={tmp_path}")
    assert "--port: something listens on" in error
    assert [p.name for p in tmp_path.iterdir()] == ["prometheus"], "nothing was written"


def test_watch_needs_series(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "prometheus"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    args = ("--set=observe.metrics=false", f"--set=run.dir={tmp_path}", f"--port={free_port()}")
    assert "observe.metrics: false leaves Prometheus without a series" in run(
        capsys, monkeypatch, "watch", SANDBOX, *args
    )
    assert [p.name for p in tmp_path.iterdir()] == ["prometheus"], "nothing was written"
