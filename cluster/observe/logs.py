"""Plain logs, one file a worker: `runs/NAME/logs/ROLE-N.log`.

Lines say what happened, never what was said: prompts, attacks and responses do not go here.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog


def configure_logs(run_dir: str | Path, role: str) -> None:
    """Sends this process's log lines (ours, and warnings of the libraries) to `logs/ROLE.log` of the run."""
    handler = logging.FileHandler(Path(run_dir) / "logs" / f"{role}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in ("httpx", "httpx2", "openai", "urllib3", "asyncio", "transformers", "deepspeed", "DeepSpeed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def log_rank(run_dir: str, player: str, rank: int) -> None:
    """`configure_logs` for one learner rank."""
    configure_logs(run_dir, f"learner-{player}-{rank}")


def with_log(cls: type, run_dir: str | Path, role: str) -> type:
    """The actor class `cls`, writing its log to the run directory. Its constructor takes what `cls` takes."""
    init: Callable[..., None] = cls.__init__  # type: ignore[misc]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        configure_logs(run_dir, role)
        init(self, *args, **kwargs)

    return type(cls.__name__, (cls,), {"__init__": __init__, "__module__": cls.__module__})
