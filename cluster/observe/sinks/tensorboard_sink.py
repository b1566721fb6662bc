"""TensorBoard: event files in the run directory, by torch's `SummaryWriter`."""

from typing import Any

from cluster.observe.sinks.sink import Record, RunFacts

FLUSH_S = 10  # a run that is killed loses no more


class TensorboardSink:
    """See `sink.Sink`. A resumed run adds a file; TensorBoard draws both parts as one curve."""

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self, run: RunFacts) -> None:
        """Opens an event file, with the recipe's settings as a table."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder), flush_secs=FLUSH_S)
        rows = [f"| {key} | {value} |" for key, value in run.settings.items()]
        self._writer.add_text("recipe", "\n".join([f"| {run.name} | |", "|---|---|", *rows]), 0)

    def write(self, record: Record) -> None:
        """Each number at its step and time."""
        for name, value in record.values.items():
            self._writer.add_scalar(name, value, record.step, record.time_s)

    def end(self, status: str) -> None:
        """Flushes and closes the file."""
        self._writer.close()

    def abandon(self) -> None:
        """Nothing: its threads are daemons."""
