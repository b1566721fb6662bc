"""The four boards, and which of their panels show a metric."""

from cluster.observe.boards import game, health, learning, throughput
from cluster.observe.boards.panel import Board, Panel, Query
from cluster.observe.promql import gauge
from protocol import metrics as m
from protocol.metrics import Metric

BOARDS: tuple[Board, ...] = (game.BOARD, learning.BOARD, throughput.BOARD, health.BOARD)
STARTS = Query(f"{gauge(m.PROCESS_START, 'max', ('role',))} > time() - 60", "{{role}}")  # marked on every graph


def panels_of(metric: Metric) -> tuple[tuple[Board, Panel], ...]:
    """Where it is shown."""
    return tuple((board, panel) for board in BOARDS for panel in board.panels if metric in panel.metrics)
