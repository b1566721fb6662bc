"""Rows of a table in a text file, with its columns: CSV, TSV, JSON lines, or one JSON list of objects; told apart by the content.

It knows nothing of suites. Messages never quote a cell: it may hold an attack.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.errors import UserError
from protocol.seeds import BadLine

CELL_MAX = 1 << 24  # characters; Python's own limit of 131,072 is below some jailbreaks
SHOWN_COLUMNS, SHOWN_CHARS = 10, 24  # of a header in a message: it may be no header but a first row of texts


@dataclass(frozen=True, slots=True)
class Rows:
    """A table.

    Attributes:
        columns: in their order; of JSON objects all keys that occur.
        rows: each with its number, from 1, and its cells as text; what a row does not have is "".
        bad: rows that could not be read.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]
    bad: tuple[BadLine, ...]

    def show_columns(self) -> str:
        """The columns in a message, cut where they are long or many."""
        shown = [c if len(c) <= SHOWN_CHARS else f"{c[:SHOWN_CHARS]}..." for c in self.columns[:SHOWN_COLUMNS]]
        more = len(self.columns) - len(shown)
        return (", ".join(" ".join(c.split()) for c in shown) or "none") + (f" and {more} more" if more else "")


def read_rows(path: Path, where: str) -> Rows:
    """Reads a file in UTF-8, with or without a byte order mark.

    Args:
        where: the option that named it, for messages.

    Raises:
        UserError: it is missing, no text in UTF-8, or no table at all.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as e:
        raise UserError(
            f"{where}: {path} cannot be read ({type(e).__name__}); give a CSV, TSV or JSONL file in UTF-8"
        ) from None
    start = text.lstrip()[:1]
    if start == "[":
        return _of_objects(_list(text, path, where))
    if start == "{":
        return _of_objects((n, _object(line)) for n, line in enumerate(text.split("\n"), 1) if line.strip())
    if not start:
        raise UserError(f"{where}: {path} is empty; give a file with at least one prompt")
    return _of_csv(text, path, where)


def _list(text: str, path: Path, where: str) -> Iterator[tuple[int, Any]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{where}: {path} begins like a JSON list and is none; mend it, or give JSON lines") from None
    return ((n, value if isinstance(value, dict) else None) for n, value in enumerate(values, 1))


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _of_objects(values: Iterator[tuple[int, dict[str, Any] | None]]) -> Rows:
    columns: dict[str, None] = {}
    rows: list[tuple[int, Mapping[str, str]]] = []
    bad: list[BadLine] = []
    for number, value in values:
        if value is None:
            bad.append(BadLine(number, "no JSON object"))
            continue
        columns |= dict.fromkeys(value)
        rows.append((number, {key: _cell(cell) for key, cell in value.items()}))
    return Rows(tuple(columns), tuple(rows), tuple(bad))


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


def _of_csv(text: str, path: Path, where: str) -> Rows:
    csv.field_size_limit(CELL_MAX)
    header = text.lstrip("\r\n").split("\n", 1)[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in header else ",")
    rows: list[tuple[int, Mapping[str, str]]] = []
    bad: list[BadLine] = []
    columns: tuple[str, ...] = ()
    number = 0
    try:
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = tuple(cell.strip() for cell in cells)
                continue
            number += 1
            if len(cells) != len(columns):
                bad.append(BadLine(number, "other columns than the header"))
            else:
                rows.append((number, dict(zip(columns, cells, strict=True))))
    except csv.Error as e:
        raise UserError(f"{where}: {path}: row {number + 1} is no CSV ({e}); mend the file") from None
    return Rows(columns, tuple(rows), tuple(bad))
