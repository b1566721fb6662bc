"""YAML as a recipe may be written in it: each key once in a mapping, no alias inside what it names, no more than a person writes.

YAML's own loader takes the last of two equal keys in silence, and makes a value that holds itself, which nothing here could read.
It knows nothing of recipes.
"""

from collections.abc import Sequence
from typing import Any

import yaml

MAX_VALUES = (
    100_000  # with aliases written out: a recipe has some 200, and nine aliases of nine make a thousand million
)


class BadYaml(ValueError):
    """What is wrong with a text, in words that follow its name: "is no YAML (...); mend it".

    line: from 1; None where it is not known. unreadable: it is no YAML at all.
    """

    def __init__(self, what: str, line: int | None = None, unreadable: bool = False) -> None:
        super().__init__(what)
        self.line, self.unreadable = line, unreadable


def parse_yaml(text: str) -> Any:
    """The value of a text with one document; None of an empty one.

    Raises:
        BadYaml: it is no YAML, or breaks a rule above.
    """
    try:
        return _load(text)
    except RecursionError:
        raise BadYaml("nests too deeply; a recipe has five levels") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise BadYaml(f"is no YAML ({problem}); mend it", mark and mark.line + 1, unreadable=True) from None
    except BadYaml:
        raise
    except ValueError:  # what looks like a date and is none
        raise BadYaml("is no YAML (unreadable); mend it", unreadable=True) from None


def _load(text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check(root)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _check(root: yaml.Node) -> None:
    """Goes through the nodes without recursion, each once, and counts them as often as aliases name them."""
    sizes: dict[int, int] = {}  # of what is finished
    above: set[int] = set()  # what the present node stands in
    todo = [(root, False)]
    while todo:
        node, finished = todo.pop()
        below = _children(node)
        if finished:
            above.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in below)
            if sizes[id(node)] > MAX_VALUES:
                raise BadYaml(
                    f"unfolds to more than {MAX_VALUES} values; write it without so many aliases", _line(node)
                )
        elif id(node) in above:
            raise BadYaml("has an alias inside of what it names; write its value out", _line(node))
        elif id(node) not in sizes:
            if isinstance(node, yaml.MappingNode):
                _refuse_repeats(node)
            above.add(id(node))
            todo.append((node, True))
            todo.extend((child, False) for child in below)


def _children(node: yaml.Node) -> Sequence[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _refuse_repeats(node: yaml.MappingNode) -> None:
    first: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        named = key.tag, key.value
        if named in first:
            raise BadYaml(f"has {key.value} twice in one mapping, first at line {first[named]}; keep one", _line(key))
        first[named] = _line(key)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
