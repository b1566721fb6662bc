"""How a person is told to get the dashboard's token, and that Ray finds py-spy."""

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from cluster.run import session
from cluster.run.session import show_program


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment's folder of programs, with a `ray` in it."""
    programs = tmp_path / "checkout" / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "ray").touch(mode=0o755)
    monkeypatch.setattr(session, "BIN", programs)
    monkeypatch.setattr(session, "_added", set())
    monkeypatch.setenv("RAY_DASHBOARD_ENABLE_PROFILING", "0")  # so that what a test changes is undone
    return programs


def test_an_activated_environment_needs_the_name_only(environment: Path, tmp_path: Path) -> None:
    assert show_program("ray", tmp_path, f"{environment}:/usr/bin") == "ray"


def test_another_environments_program_is_not_meant(environment: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "ray").touch(mode=0o755)
    assert show_program("ray", tmp_path / "checkout", f"{other}:{environment}") == ".venv/bin/ray"


def test_without_it_the_path_from_where_the_person_is(environment: Path, tmp_path: Path) -> None:
    assert show_program("ray", tmp_path / "checkout", "/usr/bin") == ".venv/bin/ray"
    assert show_program("ray", tmp_path / "elsewhere", "/usr/bin") == str(environment / "ray")


def test_what_we_put_on_the_path_is_not_the_persons(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    session._allow_profiling()
    assert os.environ["PATH"] == f"/usr/bin:{environment}"
    session._allow_profiling()
    assert os.environ["PATH"] == f"/usr/bin:{environment}", "once"
    assert show_program("ray", environment.parents[1], os.environ["PATH"]) == ".venv/bin/ray"


@pytest.mark.parametrize(
    ("mode", "given", "allowed"),
    [(None, None, "1"), ("token", None, "1"), ("disabled", None, None), ("token", "0", "0")],
)
def test_stacks_are_shown_behind_a_token_only(
    mode: str | None, given: str | None, allowed: str | None, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RAY_AUTH_MODE", mode), ("RAY_DASHBOARD_ENABLE_PROFILING", given)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", "/usr/bin")
    session._allow_profiling()
    assert os.environ.get("RAY_DASHBOARD_ENABLE_PROFILING") == allowed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_interrupted_may_still_wait_and_only_a_second_ctrl_c_hurries_it(number: signal.Signals) -> None:
    told: list[bool] = []

    async def drive() -> None:
        try:
            await asyncio.sleep(60.0)
        except BaseException:
            for again in (signal.SIGTERM, signal.SIGINT):  # as the learners' checkpoints are waited for
                os.kill(os.getpid(), again)
                await asyncio.sleep(0.02)
                told.append(session.hurry.is_set())
            raise

    with session.interrupts():
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        with pytest.raises(session.Interrupted, match=number.name):
            asyncio.run(drive())
        assert told == [False, True]
    with session.interrupts():
        assert not session.hurry.is_set(), "the next run begins without hurry"
