"""The recipe's sections about its workers: how many play, how they ask the others, and when one is replaced."""

from protocol.recipe.sections import Positive, Seconds, Section


class RolloutConfig(Section):
    """Who plays the games."""

    workers: Positive = 1  # each plays its share of game.in_flight; one manages some 200 games a second


class RouterConfig(Section):
    """How asks are put to generation and judge workers."""

    # An ask without a token for so long is put to another worker too; the first answer counts. Of judges, whose calls are many
    # texts each: one whose judge is silent, or whose engine stands still for so long.
    hedge_s: Seconds = 5.0


class HealthConfig(Section):
    """When a generation or judge worker is suspect, and when a suspect one is replaced."""

    every_s: Seconds = 2.0  # between two looks at every worker
    stuck_s: Seconds = (
        60.0  # suspect: it has requests and its engine took no step for so long; a long prefill is no step
    )
    silent_s: Seconds = 20.0  # suspect: it did not answer for so long
    misses: Positive = 8  # suspect: so many asks in a row went elsewhere or expired
    replace_s: Seconds = 10.0  # a worker that is suspect for so long is replaced
