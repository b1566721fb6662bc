"""The one exception that means "the user can fix this", and how any other is logged without what it quotes.

The CLI prints a `UserError` on one line and exits with status 2, without a traceback. Anything else that escapes is our bug.
"""

import traceback
from typing import Final

DIGEST_MISMATCH: Final = (
    "digest_mismatch"  # the reason of a push whose bytes, or loaded parameters, are not what was sent
)


class UserError(Exception):
    """A mistake in a recipe, a file, a name or the machine's size.

    The message is one line and says what, where, the limit, and the remedy, as in
    ``game.responses: 0 is below 1; set game.responses to at least 1``.
    """


class NotHandedOver(Exception):
    """A version could not be left with whoever takes versions over. It is superseded by the next one; nothing else is lost."""


class VersionGone(Exception):
    """The bytes of a version are not where they were, or not any more: their node is gone, or a newer version took their place."""

    reason = "version_gone"

    def __init__(self, player: str, version: int) -> None:
        super().__init__(f"version {version} of the {player} is not held any more")
        self._args = player, version

    def __reduce__(self) -> tuple[type["VersionGone"], tuple[str, int]]:
        return type(self), self._args


def trail(error: BaseException) -> list[str]:
    """An error's type and the lines it passed, without its message: that may quote a prompt. Of a group, each part's too."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    nested = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [type(error).__name__, *own, *(line for part in nested for line in trail(part))]


def first_words(error: BaseException, most: int = 200) -> str:
    """A library's error on one line, for a message to the user. Only where what it says cannot quote a prompt."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:most]}" if said else type(error).__name__
