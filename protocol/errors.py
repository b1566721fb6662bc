"""The one exception that means "the user can fix this", and what may be written of any other: never what it quotes.

The CLI prints a `UserError` on one line and exits with status 2, without a traceback. Anything else that escapes is our bug. Its
message may quote a prompt or an answer (a `KeyError` its key, Arrow a cell), so logs, notes and `summary.json` get its type and the
lines that it passed. A message is kept only where it cannot quote one: see `sum_up`.
"""

import re
import traceback
from typing import Final

DIGEST_MISMATCH: Final = (
    "digest_mismatch"  # the reason of a push whose bytes, or loaded parameters, are not what was sent
)
WORDS = 300  # characters of a message

# As Python writes it, with a path and a name that no sentence has. A remote error's text is all that there is of its lines.
_FRAME = re.compile(r'\s*File "([^"\s]+)", line (\d+), in ([\w.<>]+)\s*')
_TYPE = re.compile(r"([A-Za-z_][\w.]*)(?::|$)")
# Ray's own words about processes, nodes and objects. Its other errors carry what a task raised.
_RAY_SAYS = frozenset(
    {
        "ActorDiedError",
        "ActorUnavailableError",
        "ActorUnschedulableError",
        "GetTimeoutError",
        "LocalRayletDiedError",
        "NodeDiedError",
        "OutOfMemoryError",
        "RayActorError",
        "WorkerCrashedError",
    }
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
    """An error's type and the lines it passed, without its message: that may quote a prompt. Of a group, each part's too.

    Of a remote error also the types and lines that its text tells.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    nested = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    remote = _read_trail(str(error)) if _is_remote(error) else []
    return [type(error).__name__, *own, *remote, *(line for part in nested for line in trail(part))]


def sum_up(error: BaseException, numbers_only: tuple[type[BaseException], ...] = ()) -> str:
    """An error on one line: its type, and its message only where that cannot quote a text of the game.

    Those are a `UserError` (ours), what the system says of a file or a connection, torch's own errors, and what Ray says of
    processes. Of a remote error its cause counts; one without is named by its type and its last line.

    Args:
        numbers_only: more types whose messages speak of numbers only, where the caller knows that. Exact types, no subclasses.
    """
    name = type(error).__name__
    if _is_remote(error):
        cause = getattr(error, "cause", None)
        lines = _read_trail(str(error))
        if isinstance(cause, BaseException) and not _is_remote(cause):
            told = sum_up(cause, numbers_only)
            at = [line for line in lines if " " in line]
            return f"{told} at {at[-1]}" if at and told == type(cause).__name__ else told
        if lines:
            return " at ".join(reversed(lines[-2:]))
        return f"{name}: {last_line(error)}" if name in _RAY_SAYS else name
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}" + (f": {error.filename}" if error.filename else "")
    own_words = isinstance(error, UserError | MemoryError) or type(error) in numbers_only
    if own_words or type(error).__module__.partition(".")[0] == "torch":
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{name}: {said[0][:WORDS]}" if said else name
    return name


def render(error: BaseException, numbers_only: tuple[type[BaseException], ...] = ()) -> str:
    """A traceback as Python writes it, with those of its causes before it, each with `sum_up` in place of its message."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:  # a library can tie causes into a ring
        chain.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\n\nThen, because of it or after it:\n\n".join(_render_one(e, numbers_only) for e in reversed(chain))


def _render_one(error: BaseException, numbers_only: tuple[type[BaseException], ...]) -> str:
    lines = "".join(traceback.format_tb(error.__traceback__))
    remote = "".join(f"  remote: {line}\n" for line in _read_trail(str(error))) if _is_remote(error) else ""
    nested = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    parts = "".join(f"\n\nPart of it:\n\n{render(part, numbers_only)}" for part in nested)
    return f"Traceback (most recent call last):\n{lines}{remote}{sum_up(error, numbers_only)}{parts}"


def first_words(error: BaseException, most: int = 200) -> str:
    """A library's error on one line, for a message to the user. Only where what it says cannot quote a prompt."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:most]}" if said else type(error).__name__


def last_line(error: BaseException) -> str:
    """The last line of an error's text: Ray puts the cause there, under the remote traceback. Only where it cannot quote a text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:WORDS] if lines else type(error).__name__


def _is_remote(error: BaseException) -> bool:
    """Whether Ray raised it, or brought it from another process. Told by the name, for this package does not know Ray."""
    return any(base.__module__ == "ray.exceptions" for base in type(error).__mro__)


def _read_trail(text: str) -> list[str]:
    """The lines and types in the text of a remote traceback; what stands between them is code or a message, and is left out."""
    found, in_frames = [], False
    for line in text.splitlines():
        if (frame := _FRAME.fullmatch(line)) is not None:
            path, number, name = frame.groups()
            found.append(f"{path}:{number} {name}")
            in_frames = True
        elif (
            in_frames and line and not line[0].isspace()
        ):  # right below the frames and their code: the type and its message
            found += [kind[1]] if (kind := _TYPE.match(line)) is not None else []
            in_frames = False
    return found
