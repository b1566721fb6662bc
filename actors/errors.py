"""What can go wrong between a game and the engine that serves it. Light: imports nothing, so that a client needs no vLLM.

Every class pickles by its message alone, because it crosses a Ray boundary.
"""


class PromptTooLong(Exception):
    """The prompt leaves no room for a single token. The game is given up (`prompt_too_long`); the run goes on."""


class GenerationDeadline(Exception):
    """No completion within `generation.deadline_s`, whatever the reason. The game is given up."""


class WeightsRefused(RuntimeError):
    """A push that was turned down before anything was loaded: the worker serves on under its old version."""


class WorkerBroken(RuntimeError):
    """The engine holds weights that nobody vouches for, or is dead. It was thrown away and must be built anew."""
