"""Logs, one file a process: `runs/NAME/logs/ROLE-N.log`. Every line says which run, role, rank, node and game it is about.

Lines say what happened, never what was said: prompts, attacks and responses do not go here. So an exception, whoever logs it, is
written with its lines and without a message that may quote one (`protocol.errors.render`).

What is the process's (`Origin`) is the same in all of its lines; what is a game's or an ask's is bound where it is played
(`structlog.contextvars.bound_contextvars(game=...)`) and is in the lines of everything that is called from there. Ours go in from
INFO on, the libraries' from WARNING on. vLLM keeps its own stream, the one that Ray's dashboard shows, with the same ids in front.
"""

import json
import logging
import os
import platform
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

from protocol.errors import render
from protocol.recipe import LogStyle

OURS = ("protocol", "judge", "actors", "learners", "cluster")
APART = ("DeepSpeed", "ray")  # loggers that hand nothing up to the root
IDS = ("run", "role", "rank", "node", "game", "ask")


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose lines they are.

    Attributes:
        run: its name.
        role: the part and its number, as its log file is called.
        rank: of a learner group; None for everybody else.
        node: the address that Ray's dashboard shows for it.
    """

    run: str
    role: str
    rank: int | None = None
    node: str = ""

    def ids(self) -> dict[str, str | int]:
        """What goes into each line."""
        rank = {} if self.rank is None else {"rank": self.rank}
        return {"run": self.run, "role": self.role, **rank, "node": self.node}


def this_node() -> str:
    """The address by which Ray knows this node; without Ray, the host's name."""
    import ray

    return str(ray.util.get_node_ip_address()) if ray.is_initialized() else platform.node()


def configure_logs(run_dir: str | Path, origin: Origin, style: LogStyle = "plain") -> None:
    """From now on this process's lines go to `logs/ROLE.log` of the run. A second call replaces the first."""
    handler = logging.FileHandler(Path(run_dir) / "logs" / f"{origin.role}.log", encoding="utf-8")
    handler.setFormatter(make_formatter(origin, style))
    handler.addFilter(_is_wanted)
    handler.set_name("advgame")
    root = logging.getLogger()
    for logger in (root, *map(logging.getLogger, APART)):
        for old in [h for h in logger.handlers if h.get_name() == handler.get_name()]:
            logger.removeHandler(old)
            old.close()
        logger.addHandler(handler)
    logging.getLogger("DeepSpeed").propagate = False  # as DeepSpeed itself has it, from its import on
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    os.environ["VLLM_LOGGING_PREFIX"] = f"[{_pairs(origin.ids())}] "  # read at its import, and by its processes


def make_formatter(origin: Origin, style: LogStyle) -> logging.Formatter:
    """Writes structlog's events and any library's record alike."""
    ids = origin.ids()

    def add_ids(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return dict(event) | ids

    write = _write_json if style == "json" else _write_plain
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars],
        processors=[
            add_ids,
            _cut_asyncio,
            _add_place,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.ExceptionRenderer(_render_error),
            write,
        ],
        keep_exc_info=False,
    )


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in OURS


def _add_place(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how grave and from which module: of the record, which structlog and the libraries both make."""
    record: logging.LogRecord = event["_record"]
    return {"time": record.created, "level": record.levelname, "logger": record.name} | dict(event)


def _cut_asyncio(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """asyncio puts the `repr` of a task, its exception's message in it, below its first line."""
    record: logging.LogRecord = event["_record"]
    return dict(event) | {"event": event["event"].partition("\n")[0]} if record.name == "asyncio" else event


def _render_error(exc_info: tuple[type[BaseException], BaseException, TracebackType | None]) -> str:
    """Of what `sys.exc_info` gives."""
    return render(exc_info[1])


def _write_plain(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """`TIME LEVEL logger [ids] event='...' key='...'`, and below it the traceback, if there is one."""
    at = datetime.fromtimestamp(event.pop("time")).isoformat(" ", "milliseconds").replace(".", ",")
    head = f"{at} {event.pop('level')} {event.pop('logger')}"
    ids = {key: event.pop(key) for key in IDS if key in event}
    trace = event.pop("exception", None)
    line = f"{head} [{_pairs(ids)}] event={event.pop('event')!r}"
    line += "".join(f" {key}={value!r}" for key, value in event.items())
    return line if trace is None else f"{line}\n{trace}"


def _write_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    at = datetime.fromtimestamp(event["time"], UTC).isoformat(timespec="milliseconds")
    return json.dumps(dict(event) | {"time": at}, default=repr, ensure_ascii=False)


def _pairs(ids: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in ids.items())
