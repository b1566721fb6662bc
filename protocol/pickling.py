"""Quick pickling for the small frozen classes that travel in every call between parts.

A frozen dataclass with slots pickles by looking its fields up one by one, in Python, on both sides. By its constructor's arguments
it costs a fraction of that; a game's calls hold some hundred of such objects.
"""

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)


def pickled_by_fields(cls: Class) -> Class:
    """The dataclass, pickled as a call of itself with its fields, all of which its constructor takes in their order."""
    names = [f.name for f in fields(cls)]
    if not names or not all(f.init for f in fields(cls)):
        raise TypeError(f"{cls.__name__}: the constructor must take every field")
    read: Callable[[Any], Any] = attrgetter(*names)
    one = len(names) == 1

    def __reduce__(self: Any) -> tuple[Any, tuple[Any, ...]]:
        found = read(self)
        return cls, (found,) if one else found

    cls.__reduce__ = __reduce__  # type: ignore[method-assign, assignment]
    return cls
