"""Log lines: whose they are is in every one of them, ours and the libraries', and what a player wrote is in none."""

import ast
import asyncio
import gc
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.contextvars import bind_contextvars

from cluster.observe.logs import APART, IDS, OURS, Origin, configure_logs
from tests.paths import ROOT

ORIGIN = Origin("paper", "learner-defender-1", rank=1, node="10.0.0.7")
PREFIX = "[run=paper role=learner-defender-1 rank=1 node=10.0.0.7"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run's folder. What `configure_logs` changes in this process is undone."""
    loggers = [logging.getLogger(name) for name in (None, *APART, *OURS)]
    kept = [(one, list(one.handlers), one.level, one.propagate) for one in loggers]
    monkeypatch.setenv("VLLM_LOGGING_PREFIX", "")
    (tmp_path / "logs").mkdir()
    yield tmp_path
    for one, handlers, level, propagate in kept:
        for handler in set(one.handlers) - set(handlers):
            one.removeHandler(handler)
            handler.close()
        one.setLevel(level)
        one.propagate = propagate
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(run: Path) -> list[str]:
    return (run / "logs" / "learner-defender-1.log").read_text().splitlines()


def test_every_line_says_run_role_rank_and_node(run: Path) -> None:
    configure_logs(run, ORIGIN)
    structlog.get_logger("learners.loop").info("learner ready", step=3)
    logging.getLogger("httpx").warning("slow: %s", "api")
    logging.getLogger("DeepSpeed").warning("overflow")
    logging.getLogger("ray.train").warning("a worker died")
    written = lines(run)
    assert len(written) == 4 and all(PREFIX in line for line in written), written
    assert written[0].endswith(f"INFO learners.loop {PREFIX}] event='learner ready' step=3")
    assert "event='slow: api'" in written[1]


def test_of_the_libraries_only_warnings(run: Path) -> None:
    configure_logs(run, ORIGIN)
    logging.getLogger("httpx").info("POST")
    logging.getLogger("ray").info("joined")
    structlog.get_logger("actors.rollout").debug("detail")
    assert lines(run) == []


def test_deepspeed_hands_its_lines_over_although_it_makes_a_logger_of_its_own(run: Path) -> None:
    """As `deepspeed.utils.logging` does it at its import, after the log was set up."""
    configure_logs(run, ORIGIN)
    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    logger.warning("once")
    assert len(lines(run)) == 1


def test_a_second_set_up_replaces_the_first(run: Path) -> None:
    configure_logs(run, ORIGIN)
    configure_logs(run, ORIGIN)
    structlog.get_logger("judge").warning("once")
    assert len(lines(run)) == 1


async def test_a_games_lines_carry_its_id_and_those_of_others_do_not(run: Path) -> None:
    configure_logs(run, ORIGIN)
    log = structlog.get_logger("actors.rollout")

    async def play(game: str) -> None:
        bind_contextvars(game=game)
        await asyncio.sleep(0)
        log.info("asked")
        await asyncio.to_thread(logging.getLogger("openai").warning, "retry")

    await asyncio.gather(*(asyncio.create_task(play(game)) for game in ("4", "17")))
    log.info("tick")
    games = [line.split("node=10.0.0.7")[1].split("]")[0] for line in lines(run)]
    assert sorted(games) == ["", " game=17", " game=17", " game=4", " game=4"]


def test_json_is_one_object_a_line_with_the_traceback_inside(run: Path) -> None:
    configure_logs(run, ORIGIN, "json")
    log = structlog.get_logger("learners.fit")
    try:
        raise ValueError("two\nlines of an attack")
    except ValueError as error:
        log.error("rank failed", exc_info=error, path=Path("a"))
    logging.getLogger("httpx").warning("slow")
    first, second = (json.loads(line) for line in lines(run))
    assert {key: first[key] for key in ("run", "role", "rank", "node")} == ORIGIN.ids()
    assert first["event"] == "rank failed" and first["level"] == "ERROR" and first["logger"] == "learners.fit"
    assert (
        first["exception"].startswith("Traceback")
        and first["exception"].endswith("\nValueError")
        and first["time"].endswith("+00:00")
    )
    assert second["event"] == "slow" and second["role"] == "learner-defender-1"


def test_a_plain_traceback_stands_below_its_line(run: Path) -> None:
    configure_logs(run, ORIGIN)
    try:
        raise PermissionError(13, "no right", "/a")
    except PermissionError as error:
        structlog.get_logger("learners.fit").error("rank failed", exc_info=error)
    written = lines(run)
    assert (
        PREFIX in written[0] and written[1].startswith("Traceback") and written[-1] == "PermissionError: no right: /a"
    )


async def test_whoever_logs_an_exception_its_message_stays_out(run: Path) -> None:
    """Ours, a library's, and asyncio's of a task that nobody looked at, which has the message in the task's `repr`, too."""
    configure_logs(run, ORIGIN)

    attack = "an attack"

    async def fail() -> None:
        raise KeyError(attack)

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    gc.collect()
    try:
        await fail()
    except KeyError:
        structlog.get_logger("actors.rollout").exception("failed")
        logging.getLogger("httpx").exception("failed")
    text = "\n".join(lines(run))
    assert text.count("Traceback") == 3 and "Task exception was never retrieved" in text and "in fail" in text
    assert attack not in text


def test_vllms_own_stream_has_the_ids_in_front(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    configure_logs(run, Origin("paper", "judge-0", node="n"))
    assert os.environ["VLLM_LOGGING_PREFIX"] == "[run=paper role=judge-0 node=n] "


def test_no_line_of_ours_calls_something_else_by_the_name_of_an_id() -> None:
    """The process's own would stand above it, and the line would say less than it was given."""
    levels = {"debug", "info", "warning", "error", "exception", "critical"}
    taken = set(IDS) - {"game", "ask"}
    for path in (file for package in OURS for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in levels:
                clash = taken & {keyword.arg for keyword in node.keywords}
                assert not clash, f"{path.name}:{node.lineno} {clash}"
