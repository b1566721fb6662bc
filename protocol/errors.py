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
