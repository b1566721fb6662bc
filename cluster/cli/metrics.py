"""`metrics RUN`."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer


def metrics(
    run: Annotated[Path, typer.Argument(help="a directory under runs/; it may be running")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="on 127.0.0.1; 0: any free one")] = 9400,
) -> None:
    """Serves a finished or a running run's newest values to Prometheus, without Ray, until Ctrl-C. Reads only."""
    from cluster.observe.export.serve import serve_metrics

    def say(text: str) -> None:
        typer.echo(text, err=True)

    try:
        with serve_metrics(run, port, say) as address:
            for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job is started with the first ignored
                signal.signal(number, signal.default_int_handler)
            say(f"{run.resolve().name}: {address} (Ctrl-C ends it)")
            threading.Event().wait()
    except KeyboardInterrupt:
        say("ended")
