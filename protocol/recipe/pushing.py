"""The recipe's section about weight pushes."""

from typing import Literal

from protocol.recipe.sections import Positive, Seconds, Section


class DeadlinesConfig(Section):
    """Seconds that each phase of a push may take; `push.deadline_s` is for all of a worker's phases together."""

    stage_s: Seconds = 60.0  # gathering the sampler's weights under ZeRO-3; the learner waits for it
    send_s: Seconds = 60.0  # the bytes reach the worker's host (or its GPU: nccl, ipc)
    pause_s: Seconds = 15.0  # running requests are paused
    load_s: Seconds = 60.0  # the engine's parameters are overwritten
    verify_s: Seconds = 30.0  # checksums of the weights it has now
    resume_s: Seconds = 15.0  # running requests go on


class PushConfig(Section):
    """How versions reach the generation workers."""

    every: Positive = 1  # steps
    to: Literal["all", "spread"] = "all"  # spread: replicas at power-spaced ages, so that past policies are played too
    transport: Literal["auto", "host", "nccl", "ipc"] = "auto"  # auto: host; nccl and ipc, GPU to GPU, by name only
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"  # on the wire; auto: what the engine holds
    stage_mib: Positive = 256  # gathered at once: a few layers of a 7B model
    deadline_s: Seconds = 60.0  # for one worker, all phases; past it the worker is replaced
    deadlines: DeadlinesConfig = DeadlinesConfig()

    @property
    def join_s(self) -> float:
        """Seconds for a learner and its workers to meet (nccl, ipc). Then there is still time for the version to go another way."""
        return min(self.deadlines.send_s, self.deadline_s / 2)
