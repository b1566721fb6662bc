"""The catalogue: every metric once, with its type, unit, labels, meaning, and the part whose process sets it.

Pure data. Docs, dashboards, alerts, the exporter and the checks of live series are made from it; `protocol.meter` sets values.
"""

from protocol.metrics import driver, learning, replay, serving
from protocol.metrics.driver import *  # noqa: F403
from protocol.metrics.learning import *  # noqa: F403
from protocol.metrics.metric import *  # noqa: F403
from protocol.metrics.metric import Metric
from protocol.metrics.replay import *  # noqa: F403
from protocol.metrics.serving import *  # noqa: F403

CATALOGUE: tuple[Metric, ...] = tuple(
    value for room in (driver, replay, serving, learning) for value in vars(room).values() if isinstance(value, Metric)
)
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in CATALOGUE}
