"""Does a run measure on what it learned from? Held-out seeds that are also training seeds, or demonstrations, show nothing.

Texts are the same whatever their case and white space, and whatever their category. Pure; no text goes into a message.
"""

from collections.abc import Iterable, Sequence

from protocol.errors import UserError
from protocol.types import Seed


def _bare(text: str) -> str:
    return " ".join(text.split()).casefold()


def check_overlap(train: Sequence[Seed], heldout: Sequence[Seed], demonstrated: Iterable[str] = ()) -> str | None:
    """What to warn of, in one line; None where nothing is the same.

    Args:
        demonstrated: the prompts of the demonstrations that a player learns from.

    Raises:
        UserError: every held-out seed is a training seed.
    """
    learned = {_bare(seed.text) for seed in train}
    same = sum(_bare(seed.text) in learned for seed in heldout)
    if heldout and same == len(heldout):
        raise UserError(
            f"seeds.heldout: all {same} seeds are also in seeds.train, so nothing is held out; give other seeds, or set "
            "seeds.heldout to null"
        )
    shown = {_bare(prompt) for prompt in demonstrated} - learned
    copied = sum(_bare(seed.text) in shown for seed in heldout)
    found = [(same, "seeds.train"), (copied, "the demonstrations (sft.path)")]
    said = " and ".join(f"{n} of the {len(heldout)} are also in {where}" for n, where in found if n)
    return f"seeds.heldout: {said}; what is measured on them is too good: take them out" if said else None
