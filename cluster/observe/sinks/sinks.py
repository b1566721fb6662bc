"""All sinks of a run: they get its moments while it goes on, and a deadline at its end. None of them can slow or end the run."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from cluster.observe.kept import Sample
from cluster.observe.sinks.feed import Feed, of_steps
from cluster.observe.sinks.mlflow_sink import MlflowSink
from cluster.observe.sinks.outlet import Outlet, SinkCounts
from cluster.observe.sinks.sink import Record, RunFacts, Sink
from cluster.observe.sinks.tensorboard_sink import TensorboardSink
from cluster.observe.sinks.wandb_sink import WandbSink
from cluster.observe.view import RunView
from cluster.plan.plan import Plan
from cluster.publish.stats import StepReport
from protocol import metrics as m
from protocol.meter import meter
from protocol.recipe import SinksConfig

FLUSH_S = 15.0  # for all of them together, at the end

Say = Callable[[str], None]


def make_sinks(config: SinksConfig) -> dict[str, Sink]:
    """Those that the recipe names; nothing is opened, no package imported."""
    made: dict[str, Sink] = {}
    if config.wandb is not None:
        made["wandb"] = WandbSink(config.wandb)
    if config.mlflow is not None:
        made["mlflow"] = MlflowSink(config.mlflow)
    if config.tensorboard is not None:
        made["tensorboard"] = TensorboardSink()
    return made


class Sinks:
    """Opens them in the background.

    Args:
        say: told once of each sink that does not work.
        measured: occasions of held-out scores that an earlier part of the run handed over.
        made: in place of what the plan's recipe names; for tests.
    """

    def __init__(
        self, plan: Plan, say: Say, measured: Iterable[str] = (), made: Mapping[str, Sink] | None = None
    ) -> None:
        self._say, self._feed = say, Feed(measured)
        found = make_sinks(plan.sinks.config) if made is None else made
        self._outlets = [Outlet(name, sink, _facts(plan, name)) for name, sink in found.items()]

    def __len__(self) -> int:
        return len(self._outlets)

    def show(
        self,
        view: RunView,
        reports: Iterable[StepReport],
        samples: Callable[[], Sequence[Sample]],
        last: bool = False,
    ) -> None:
        """Hands a moment over; returns at once. Arguments as `Feed.records`; `samples` is called only if there is a sink."""
        if not self._outlets:
            return
        self._offer(self._feed.records(view, reports, samples(), time.time(), last))

    def add_steps(self, reports: Iterable[StepReport]) -> None:
        """Hands over what learners reported after the last moment."""
        self._offer(of_steps(reports))

    def _offer(self, records: Sequence[Record]) -> None:
        for outlet in self._outlets:
            for record in records:
                outlet.offer(record)
            meter().total(m.SINK_DROPPED, outlet.counts().dropped, sink=outlet.name)
            self._tell(outlet)

    def close(self, status: str) -> dict[str, SinkCounts]:
        """Waits `FLUSH_S` at most for what is under way; what each took and dropped, by name."""
        for outlet in self._outlets:
            outlet.end(status)
        deadline_s, counts = time.monotonic() + FLUSH_S, {}
        for outlet in self._outlets:
            counts[outlet.name] = outlet.close(deadline_s)
            self._tell(outlet)
            meter().total(m.SINK_DROPPED, counts[outlet.name].dropped, sink=outlet.name)
        return counts

    def _tell(self, outlet: Outlet) -> None:
        if complaint := outlet.take_complaint():
            self._say(f"sink {complaint}; the run goes on, what it does not take is counted in summary.json")


def _facts(plan: Plan, name: str) -> RunFacts:
    return RunFacts(plan.name, plan.run_dir.sinks / name, plan.resumed, plan.sinks.facts)
