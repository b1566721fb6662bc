"""The documentation page of the metrics (`docs/metrics.md`), made from the catalogue and the boards. Pure."""

from typing import get_args

from cluster.observe.boards.boards import BOARDS, panels_of
from protocol.metrics import CATALOGUE, COMMON, PREFIX, Metric, Part

PARTS: dict[Part, tuple[str, str]] = {
    "driver": ("The driver", "The process of `python -m cluster train`. `role` may name the part that it tells of."),
    "replay": ("The replay buffer", "Games, rows, staleness, who waits, verdicts of finished games."),
    "publisher": ("The publisher", "New versions on their way to the generation workers."),
    "generation": ("Generation workers", "One process a worker, with a vLLM engine."),
    "judge": ("Judge workers", "One process a worker."),
    "rollout": ("Rollout workers", "They play the games."),
    "learner": ("Learners", "Rank 0 of each player's group."),
}

HEAD = f"""# Metrics

For whoever writes a query, an alert or a board. Written by `python -m cluster.observe.boards` from the catalogue
(`protocol/metrics/`) and the boards (`cluster/observe/boards/`): change those, not this page.

- Every series is at Ray's own endpoint, which Prometheus finds through Ray's service-discovery file, with Ray's prefix `{PREFIX}`;
  a histogram has `_bucket`, `_sum` and `_count`.
- Every series has the labels `{"` and `".join(COMMON)}` besides those named here: the run's name, and the process (`driver-0`,
  `generation-attacker-0`, `learner-defender-0`, ...). Ray adds its own (`WorkerId`, `SessionName`, `NodeAddress`, ...).
- Counters and histograms have no series before their first event: use `or vector(0)` where 0 is meant. `increase` and `rate` do
  not see the first event of a counter; for what is rare, `max_over_time` of each series does.
- A gauge of a process that is gone vanishes after some 20 seconds.
- A policy version is a value, never a label.

The boards are {", ".join(f"{board.title.split(' / ')[1]} (`{board.uid}`)" for board in BOARDS)}.
`deploy/grafana/README.md` says how to load them. vLLM's own series (`ray_vllm_*`) are on Ray's board `rayDataLlmDashboard`, what
each node has left on `rayDefaultDashboard`; our boards link to both.
"""

COLUMNS = ("Name", "Type", "Unit", "Labels", "Meaning", "Series appear when", "Shown on")


def render_page() -> str:
    """The file's text."""
    return "\n".join([HEAD, *(_render_part(part) for part in get_args(Part))])


def _render_part(part: Part) -> str:
    title, what = PARTS[part]
    rows = [_render_row(metric) for metric in CATALOGUE if metric.part == part]
    table = [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, rows)]
    return "\n".join([f"## {title}", "", what, "", *table, ""])


def _render_row(metric: Metric) -> tuple[str, ...]:
    return (
        f"`{PREFIX}{metric.name}`",
        metric.kind,
        "" if metric.unit == "1" else metric.unit,
        ", ".join(_describe_label(metric, label) for label in metric.labels),
        metric.help,
        metric.only or ("the learner has GPUs" if metric.gpu else "always"),
        "; ".join(f"{board.title.split(' / ')[1]}: {panel.title}" for board, panel in panels_of(metric)),
    )


def _describe_label(metric: Metric, label: str) -> str:
    known = metric.known(label)
    return f"`{label}`" + (f" ({', '.join(known)})" if known else "")


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
