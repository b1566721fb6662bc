"""`--resume RUN --set KEY=VALUE`: which keys a run that goes on may change, and which would make it another run.

What may change is where things are and what they may use: places, paths, deadlines, workers, ranks, room, what is shown, and how
many steps there are. What the players are, learn from and are measured by stays, so that the figures of all parts are of one run.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from protocol.errors import UserError
from protocol.roles import Player

MAY_CHANGE = (
    *("models.*.path", "seeds.train", "seeds.heldout", "learners.*.sft.path", "judge.model", "judge.rubrics"),
    *("judge.probe.file", "judge.api.base_url", "judge.api.key_env"),
    *("run.steps", "run.stall_s", "run.grace_s", "run.barren_steps", "run.skipped_steps"),
    *("*.workers", "*.cpus_per_worker", "*.gpus_per_worker", "*.threads", "*.deadline_s", "*.start_deadline_s"),
    *("*.gpu_memory_utilization", "*.kv_cache_gib", "*.max_num_seqs", "*.tensor_parallel", "*.enforce_eager"),
    *("game.in_flight", "generation.backpressure*", "router.*", "health.*"),
    *("judge.attempts", "judge.cache_entries", "judge.alarm.*"),
    *("judge.api.concurrency", "judge.api.timeout_s", "judge.api.retries", "judge.api.*_per_minute"),
    *("judge.api.budget", "judge.api.budget_tokens", "judge.api.price_*"),
    *("learners.*.ranks", "learners.*.cpus_per_rank", "learners.*.gpus_per_rank", "learners.*.restarts"),
    *("learners.*.max_tokens", "learners.*.checkpoint_every", "learners.*.collective_deadline_s"),
    *("learners.*.activation_checkpointing",),
    *("push.transport", "push.stage_mib", "push.deadlines.*", "replay.fsync_s", "heldout.every", "observe.*"),
)
WORDS = "places, paths, deadlines, workers, ranks, room, observe and run.steps"


def check_changes(overrides: Sequence[str]) -> None:
    """Raises `UserError` if an override of a resumed run names a key that stays."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not any(fnmatchcase(key, pattern) for pattern in MAY_CHANGE):
            raise UserError(
                f"--set {key}: a resumed run keeps it, so that all of its parts are one run; what may change are {WORDS}; for "
                "anything else start a new run"
            )


def check_steps(steps: int, taken: Mapping[Player, int]) -> None:
    """Raises `UserError` if a run is to end before a step that a learner has taken.

    Args:
        taken: in each player's newest checkpoint.
    """
    player, most = max(taken.items(), key=lambda item: item[1])
    if steps < most:
        raise UserError(
            f"--set run.steps={steps}: the {player}'s newest checkpoint has taken {most}; set run.steps to at least {most}"
        )
