"""Metrics that a learner group's rank 0 sets. See `protocol.metrics`."""

from protocol.metrics.metric import counter, gauge, histogram
from protocol.metrics.serving import GAME_S, PUSH_S

STEPS = counter(
    "advgame_learner_steps_total",
    "1",
    "Optimizer steps: taken, empty (nothing to learn from), or skipped (the gradient was not finite).",
    "learner",
    ("player", "outcome"),
    values=(("outcome", ("taken", "empty", "skipped")),),
    sound=(("outcome", ("taken",)),),
)
STEP = gauge("advgame_step", "1", "Optimizer steps done.", "learner", ("player",))
STEP_SECONDS = histogram(
    "advgame_step_seconds", "seconds", "Seconds of a step, waiting not counted.", "learner", PUSH_S, ("player",)
)
LEASE_SECONDS = histogram(
    "advgame_lease_seconds", "seconds", "Seconds that a step waited for its games.", "learner", GAME_S, ("player",)
)
STAGE_SECONDS = histogram(
    "advgame_stage_seconds",
    "seconds",
    "Seconds that the learner stood still to stage a version.",
    "learner",
    PUSH_S,
    ("player",),
)
LEARNED_TOKENS = counter(
    "advgame_learned_tokens_total", "1", "Tokens of learned batches, all ranks.", "learner", ("player",)
)
LOSS = gauge("advgame_loss", "1", "Loss of the newest step.", "learner", ("player",))
ACCURACY = gauge(
    "advgame_accuracy_ratio",
    "ratio",
    "Share of the newest step's pairs whose chosen item the policy prefers more than its reference does.",
    "learner",
    ("player",),
    only="the loss is dpo or ipo",
)
KL = gauge(
    "advgame_kl_nats", "nats", "KL to the reference, estimated on the newest step's items.", "learner", ("player",)
)
GRAD_NORM = gauge(
    "advgame_gradient_norm", "1", "Global norm of the newest step's gradient before clipping.", "learner", ("player",)
)
LEARNING_RATE = gauge("advgame_learning_rate", "1", "Learning rate of the newest step.", "learner", ("player",))
EMA_DISTANCE = gauge(
    "advgame_average_distance_ratio",
    "ratio",
    "L2 distance of the policy from its moving average, over the policy's norm.",
    "learner",
    ("player",),
    only="the reference or the sampler is an average",
)
CHECKPOINT_STEP = gauge(
    "advgame_checkpoint_step", "1", "Step of the newest complete checkpoint.", "learner", ("player",)
)
MFU = gauge(
    "advgame_model_flops_utilization_ratio",
    "ratio",
    "FLOPs that the newest step's tokens need (6 a parameter and token, 2 more for the reference) over what the GPUs can do.",
    "learner",
    ("player",),
    gpu=True,
)
