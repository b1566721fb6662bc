"""The public shapes of suites: by which columns each is recognised, and how one of its rows is read.

A shape's file is the one that the suite's authors publish; links are in docs/evaluate.md. Pure: rows come from `rows`.

Where the columns do not say whether a prompt is harmful (JailbreakBench, OR-Bench), the file's name does, as it does for the
authors: they publish both kinds with the same columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cluster.inputs.suites.rows import Rows
from protocol.roles import CATEGORIES, Category

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a row holds. `id` is the suite's own, "" where it has none."""

    id: str
    prompt: str
    query: str
    category: Category
    topic: str


Read = Callable[[Row, str], Parsed | str]  # of a row and the file's name; a text says why the row is no item


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape: `wanted` are the columns of each of its published forms, any of which will do."""

    name: str
    wanted: tuple[tuple[str, ...], ...]
    read: Read

    def fits(self, columns: Sequence[str]) -> bool:
        """Whether a table with these columns can be of this shape."""
        return any(set(form) <= set(columns) for form in self.wanted)

    def show(self) -> str:
        """Its columns, for a message."""
        return " or ".join(", ".join(form) for form in self.wanted)


def _harmbench(row: Row, file: str) -> Parsed | str:
    if row["FunctionalCategory"] == "copyright":
        return "a copyright behaviour, which HarmBench judges by hashes of the protected texts"
    behaviour, context = row["Behavior"], row.get("ContextString", "").strip()
    prompt = f"{context}\n\n---\n\n{behaviour}" if context else behaviour  # as HarmBench itself puts it
    return Parsed(row["BehaviorID"], prompt, prompt, "harmful", row["SemanticCategory"])


def _jailbreakbench(row: Row, file: str) -> Parsed | str:
    category: Category = "benign" if "benign" in file.lower() else "harmful"
    return Parsed(row.get("Index", ""), row["Goal"], row["Goal"], category, row["Category"])


def _wildjailbreak(row: Row, file: str) -> Parsed | str:
    kind = row["data_type"]
    if not kind.endswith(CATEGORIES):
        return "a data_type that ends in neither harmful nor benign"
    plain, wrapped = row.get("vanilla", "").strip(), row["adversarial"].strip()
    prompt = wrapped or plain
    return Parsed("", prompt, plain or prompt, "harmful" if kind.endswith("harmful") else "benign", kind)


def _xstest(row: Row, file: str) -> Parsed | str:
    contrast = row["type"].startswith("contrast_") or row.get("label") == "unsafe"
    return Parsed(row.get("id", ""), row["prompt"], row["prompt"], "harmful" if contrast else "benign", row["type"])


def _strongreject(row: Row, file: str) -> Parsed | str:
    return Parsed("", row["forbidden_prompt"], row["forbidden_prompt"], "harmful", row["category"])


def _ailuminate(row: Row, file: str) -> Parsed | str:
    return Parsed(row.get("release_prompt_id", ""), row["prompt_text"], row["prompt_text"], "harmful", row["hazard"])


def _orbench(row: Row, file: str) -> Parsed | str:
    category: Category = "harmful" if "toxic" in file.lower() else "benign"
    return Parsed("", row["prompt"], row["prompt"], category, row["category"])


def _plain(row: Row, file: str) -> Parsed | str:
    category = row["category"]
    if category not in CATEGORIES:
        return f"a category that is neither of {', '.join(CATEGORIES)}"
    known: Category = "harmful" if category == "harmful" else "benign"
    return Parsed(row.get("id", ""), row["prompt"], row.get("query") or row["prompt"], known, row.get("topic", ""))


# In the order in which a table is compared with them: the more special columns first.
SHAPES = (
    Shape("harmbench", (("Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID"),), _harmbench),
    Shape("jailbreakbench", (("Goal", "Target", "Behavior", "Category"),), _jailbreakbench),
    Shape(
        "wildjailbreak",
        (("vanilla", "adversarial", "data_type"), ("adversarial", "label", "data_type")),
        _wildjailbreak,
    ),
    Shape("xstest", (("prompt", "type", "focus"), ("prompt", "type", "label")), _xstest),
    Shape("strongreject", (("category", "source", "forbidden_prompt"),), _strongreject),
    Shape("ailuminate", (("prompt_text", "hazard"),), _ailuminate),
    Shape("orbench", (("prompt", "category"),), _orbench),
    Shape("plain", (("prompt", "category"),), _plain),
)
BY_NAME = {shape.name: shape for shape in SHAPES}

# OR-Bench's categories less "harmful", which is one of ours, too: a plain file with a slip of the pen must not pass for OR-Bench.
_OF_ORBENCH = frozenset(
    ("deception", "harassment", "hate", "illegal", "privacy", "self-harm", "sexual", "unethical", "violence")
)


def recognise(table: Rows) -> Shape | None:
    """The shape of a table, by its columns; of the two that have the same ones, by its categories."""
    shape = next((shape for shape in SHAPES if shape.fits(table.columns)), None)
    if shape is not None and shape.name == "orbench":
        found = {row.get("category", "") for _, row in table.rows}
        return BY_NAME["orbench" if found & _OF_ORBENCH and "benign" not in found else "plain"]
    return shape
