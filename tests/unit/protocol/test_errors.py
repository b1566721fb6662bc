"""What may be written of an error: its type, its lines, and a message only where it cannot quote a text of the game."""

import pytest
import ray.exceptions
from ray.exceptions import ActorDiedError, GetTimeoutError, RayTaskError

from protocol.errors import UserError, render, sum_up, trail

ATTACK = "how to do it"
# A message of several lines, one of which looks like a type and one nearly like a frame.
REMOTE = f"""\
Traceback (most recent call last):
  File "/x/rows.py", line 3, in decode
    raise KeyError(text)
KeyError: {ATTACK}
{ATTACK}: more
  File "my diary", line 3, in {ATTACK}

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/x/actor.py", line 7, in lease
    raise E(text)
my.Broken: {ATTACK}"""


def remote(cause: Exception) -> RayTaskError:
    return RayTaskError("lease", REMOTE, cause, "p", 1, "10.0.0.7", actor_id="a")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError(ATTACK), "KeyError"),
        (ExceptionGroup(ATTACK, [ValueError(ATTACK)]), "ExceptionGroup"),
        (OSError(ATTACK), "OSError"),
        (FileNotFoundError(2, "No such file", "/a"), "FileNotFoundError: No such file: /a"),
        (UserError("run.dir: x is no folder; make it"), "UserError: run.dir: x is no folder; make it"),
        (RuntimeError(ATTACK), "RuntimeError"),
        (remote(ValueError(ATTACK)), "ValueError at /x/actor.py:7 lease"),
        (remote(ValueError(ATTACK)).as_instanceof_cause(), "ValueError at /x/actor.py:7 lease"),
        (remote(UserError("a: b; c")).as_instanceof_cause(), "UserError: a: b; c"),
        (ActorDiedError(remote(ValueError(ATTACK))), "my.Broken at /x/actor.py:7 lease"),
        (ActorDiedError(), "ActorDiedError: The actor died unexpectedly before finishing this task."),
        (GetTimeoutError("not in time"), "GetTimeoutError: not in time"),
        (ray.exceptions.UnserializableException(ATTACK), "UnserializableException"),
    ],
)
def test_a_message_is_kept_only_where_it_cannot_quote_a_text(error: BaseException, said: str) -> None:
    assert sum_up(error) == said
    assert ATTACK not in f"{sum_up(error)}{trail(error)}{render(error)}"


def test_where_messages_speak_of_numbers_only_they_are_told_subclasses_excepted() -> None:
    assert sum_up(RuntimeError("shape\nmore"), (RuntimeError,)) == "RuntimeError: shape"
    assert sum_up(RecursionError(ATTACK), (RuntimeError,)) == "RecursionError"


def test_of_a_remote_error_types_and_lines_are_read_and_nothing_between() -> None:
    assert trail(remote(ValueError(ATTACK)))[1:] == [
        "/x/rows.py:3 decode",
        "KeyError",
        "/x/actor.py:7 lease",
        "my.Broken",
    ]


def decode(text: str) -> None:
    try:
        raise KeyError(text)
    except KeyError as error:
        raise ValueError(text) from error


def test_a_traceback_has_its_causes_and_its_parts_and_ends_even_in_a_ring() -> None:
    try:
        decode(ATTACK)
    except ValueError as error:
        told = render(ExceptionGroup(ATTACK, [error]))
        assert told.count("in decode") == 2 and told.index("KeyError\n") < told.index("\nValueError")
        assert isinstance(error.__cause__, KeyError)
        error.__cause__.__cause__ = error
        assert render(error).count("Traceback") == 2 and ATTACK not in render(error)
