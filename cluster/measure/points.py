"""What a measurement on held-out seeds while the run learns found, and of which versions. Pure data, picklable."""

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.roles import Player


@dataclass(frozen=True, slots=True)
class HeldoutPoint:
    """One measurement. Shares are None where no response of their kind was judged.

    Attributes:
        occasion: "start", "step-N", "end" or "end_trained_attacker".
        step: learner steps of the player furthest behind, when it began.
        versions: that the players' workers served: each player's, named before the first ask.
        mixed: whether a response was sampled under another version of the Defender than the named one.
        attack_success, over_refusal, benign_compliance: shares, 0 to 1.
        n_harmful, n_benign: judged responses.
        missing: attacks and responses without a verdict, for any reason.
        time_s: when it ended, Unix seconds; `seconds`: how long it took.
    """

    occasion: str
    step: int
    versions: Mapping[Player, int]
    mixed: bool
    attack_success: float | None
    over_refusal: float | None
    benign_compliance: float | None
    n_harmful: int
    n_benign: int
    missing: int
    time_s: float
    seconds: float
