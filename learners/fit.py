"""Runs one learner group under Ray Train until its last step is exported.

A thin shell: which checkpoint to go on from, versions and rows are decided in `loop`, on whichever attempt Ray Train makes.
Importing this module loads neither torch, ray nor deepspeed.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import structlog

from learners.batch.demonstrations import load_demonstrations
from learners.failure import NUMBERS_ONLY, GroupFailed, rank_error, read_failures
from learners.loop import learn
from learners.nodes import ask_for, make_callback
from learners.spec import LearnerResult, LearnerSink, LearnerSpec
from learners.storage import checkpoints
from learners.storage.models import check_model_folder
from protocol.errors import UserError, render
from protocol.interfaces import BatchSource

log = structlog.get_logger(__name__)

_HEALTH_CHECK_S = "0.5"  # how soon a dead rank, and the end, are noticed; a check is one small actor call to each rank


def _rank_main(arguments: dict[str, Any]) -> LearnerResult:
    import ray.util
    from ray.train import get_context

    try:
        if arguments["on_rank"] is not None:
            arguments["on_rank"](get_context().get_world_rank())
        return learn(arguments["spec"], arguments["source"], arguments["sink"])
    except Exception as error:
        log.error("rank failed", exception=render(error, NUMBERS_ONLY))
        if isinstance(error, UserError):
            raise
        # Without its cause: Ray Train logs the whole chain, with a message that may quote a row.
        raise rank_error(error, ray.util.get_node_ip_address()) from None


def _resolve_paths(spec: LearnerSpec) -> LearnerSpec:
    """The same with absolute paths: Ray Train changes every rank's working directory."""
    config = spec.config
    if config.sft.path is not None:
        sft = config.sft.model_copy(update={"path": str(Path(config.sft.path).resolve())})
        config = config.model_copy(update={"sft": sft})
    return replace(
        spec,
        model_path=str(Path(spec.model_path).resolve()),
        run_dir=str(Path(spec.run_dir).resolve()),
        config=config,
    )


def _find_user_error(error: BaseException) -> UserError | None:
    """The user's mistake among the failures of a worker group, if that is what it failed of."""
    failures = getattr(error, "worker_failures", {}).values()
    causes = (getattr(failure, "_base_exc", failure) for failure in failures)
    return next((cause for cause in causes if isinstance(cause, UserError)), None)


def fit_group(
    spec: LearnerSpec,
    source: BatchSource,
    sink: LearnerSink,
    on_rank: Callable[[int], None] | None = None,
    take_nodes: Callable[[], Sequence[str]] = tuple,
) -> LearnerResult:
    """Trains one player to `spec.steps`, restarting the group from its newest checkpoint up to `config.restarts` times.

    Blocks; meant to run in a Ray task of its own. `source`, `sink` and `on_rank` are pickled to every rank; `on_rank` is called
    there with the rank before anything else (to set up its log, say). `take_nodes` gives up the room that was kept for the ranks,
    and tells Ray's ids of the nodes that it was on, one for each rank; none: any nodes.

    Returns:
        What `loop.learn` returns on rank 0.

    Raises:
        UserError: the model folder is incomplete, the demonstrations cannot be used, or the newest checkpoint was written
            with another reference, sampler or adapters.
        GroupFailed: its ranks failed more often than `config.restarts` allows.
        ray.train.TrainingFailedError: Ray Train itself failed.
    """
    spec = _resolve_paths(spec)
    config = spec.config
    check_model_folder(spec.model_path, f"models.{spec.player}.path")
    found = checkpoints.find(spec.checkpoints)
    if found.newest is not None:
        checkpoints.read_meta(found.newest, config)
    elif found.damaged or checkpoints.were_set_aside(spec.checkpoints):
        why = str(found) or "its checkpoints were damaged and set aside (*.damaged), and none is left"
        raise UserError(
            f"{spec.checkpoints}: {why}; put its files back, or remove the folder to train the {spec.player} from its start again"
        )
    load_demonstrations(spec)  # raises its errors before any rank starts
    # Ray Train gives a worker group 60 s to start and then begins anew; another job may have taken the room that was given up, and
    # two groups beside vLLM's imports on two cores take longer, too.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{spec.placement_s:.0f}")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _HEALTH_CHECK_S)

    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    on_gpu = config.gpus_per_rank > 0
    resources = {"CPU": config.cpus_per_rank} | ({"GPU": config.gpus_per_rank} if on_gpu else {})
    nodes = take_nodes()
    trainer = TorchTrainer(
        _rank_main,
        train_loop_config={"spec": spec, "source": source, "sink": sink, "on_rank": on_rank},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=int(config.collective_deadline_s)),
        scaling_config=ScalingConfig(
            num_workers=config.ranks, use_gpu=on_gpu, resources_per_worker=resources, label_selector=ask_for(nodes)
        ),
        run_config=RunConfig(
            name=f"{Path(spec.run_dir).name}-{spec.player}",  # the dashboard lists it under this name
            storage_path=str(Path(spec.run_dir) / "ray_train"),
            failure_config=FailureConfig(max_failures=config.restarts),
            callbacks=[make_callback(nodes)],
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        mistake = _find_user_error(error)
        if mistake is not None:
            raise mistake from error
        failures = read_failures(spec.player, getattr(error, "worker_failures", {}))
        if failures:
            raise GroupFailed(failures) from error
        raise
    return cast(LearnerResult, result.return_value)
