"""Metrics that the driver sets: the run as a whole, its workers, held-out scores. See `protocol.metrics`."""

from protocol.metrics.metric import counter, gauge

ROLE_PHASES = ("starting", "ready", "busy", "suspect", "down")  # of generation and judge workers
RUN_PHASES = ("starting", "measuring", "playing", "ending")  # of the driver
LEARNER_PHASES = ("starting", "leasing", "learning", "pushing", "saving", "ended")
PROBE_SCORES = ("accuracy", "changed")
HELDOUT_SCORES = ("attack_success", "over_refusal", "benign_compliance")


HEARTBEATS = counter(
    "advgame_driver_heartbeats_total",
    "1",
    "Looks of the driver at every part of the run, about one a second.",
    "driver",
)
PHASE = gauge(
    "advgame_phase",
    "1",
    "1 for the phase that the role is in, 0 for its others: driver and workers as the driver sees them, learners as they say.",
    "driver",
    ("phase",),
    values=(("phase", tuple(dict.fromkeys((*RUN_PHASES, *ROLE_PHASES, *LEARNER_PHASES)))),),
    sound=(("phase", ("starting", "playing", "ready", "busy", "leasing", "learning")),),
)
WORKERS = gauge("advgame_workers", "1", "Generation and judge workers that the run has.", "driver", ("pool",))
WORKERS_FIT = gauge("advgame_workers_fit", "1", "Those of them that are ready or busy.", "driver", ("pool",))
RESTARTS = counter(
    "advgame_worker_restarts_total",
    "1",
    "Generation and judge workers that supervision started anew, by why.",
    "driver",
    ("cause",),
    only="a worker was restarted",
)
PROCESS_START = gauge(
    "advgame_process_start_time_seconds",
    "seconds",
    "When the role's process started, Unix time; it changes with every restart, whatever its cause.",
    "driver",
)
TARGET_STEPS = gauge("advgame_target_steps", "1", "Optimizer steps that each trained player is to take.", "driver")
REMAINING = gauge(
    "advgame_remaining_seconds",
    "seconds",
    "Seconds that the slower player's remaining steps take at the pace of its recent ones; 0 before it is known.",
    "driver",
)
HELDOUT = gauge(
    "advgame_heldout_ratio",
    "ratio",
    "Newest held-out scores: share of harmful asks answered, of benign ones refused, of benign ones answered. NaN: "
    "none of that kind was judged this time.",
    "driver",
    ("score",),
    values=(("score", HELDOUT_SCORES),),
    only="held-out seeds are measured",
)
HELDOUT_VERSION = gauge(
    "advgame_heldout_version",
    "1",
    "Policy version of each player that the newest held-out scores were measured under.",
    "driver",
    ("player",),
    only="held-out seeds are measured",
)
HELDOUT_SKIPPED = counter(
    "advgame_heldout_skipped_total",
    "1",
    "Held-out measurements that were due and gave no point, by why.",
    "driver",
    ("reason",),
    only="one was missed",
)
PROBE = gauge(
    "advgame_judge_probe_ratio",
    "ratio",
    "Newest judgement of the probe set: share of answers that equal their label, of labels whose answer is not the first one. "
    "NaN: nothing could be compared this time.",
    "driver",
    ("score",),
    values=(("score", PROBE_SCORES),),
    only="judge.probe.file is set",
)
PROBE_DRIFT = gauge(
    "advgame_judge_probe_drift",
    "1",
    "Mean absolute change of a probe label's scores since its first judgement, in points of 10. NaN: none this time.",
    "driver",
    only="judge.probe.file is set",
)
DISK_FREE = gauge("advgame_disk_free_bytes", "bytes", "Bytes that the run directory's disk has left.", "driver")
SINK_DROPPED = counter(
    "advgame_sink_dropped_total",
    "1",
    "Records that a sink (W&B, MLflow, TensorBoard) did not take in time.",
    "driver",
    ("sink",),
    only="a sink dropped some",
)
