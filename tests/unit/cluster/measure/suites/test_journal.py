"""The journal: what was written is read back, what was cut off is not, and another evaluation's is never mixed in."""

from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from cluster.measure.suites.journal import Journal
from protocol.errors import UserError

ABOUT = {"models": [["m", "folder m 1"]], "samples": 2}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", ABOUT) as journal:
        journal.put({"text": "\ud800 \u2028 x\ny"}, "answer", "m", "s", "1", 0)
        journal.put({"score": 1.5}, "verdict", "m", "s", "1", 0, "compliance")
    with Journal(tmp_path / "j", ABOUT) as journal:
        assert journal.get("answer", "m", "s", "1", 0) == {"text": "\ud800 \u2028 x\ny"}
        assert journal.get("verdict", "m", "s", "1", 0, "compliance") == {"score": 1.5}
        assert journal.get("answer", "m", "s", "1", 1) is None and len(journal) == 2
    assert len((tmp_path / "j").read_bytes().split(b"\n")) == 4  # a line a record, the first, and none after the last


@pytest.mark.parametrize("keep", range(1, 40, 3))
def test_a_line_that_was_cut_off_is_as_if_never_written(keep: int, tmp_path: Path) -> None:
    file = tmp_path / "j"
    with Journal(file, ABOUT) as journal:
        journal.put({"text": "one"}, "answer", 1)
    whole = file.read_bytes()
    with Journal(file, ABOUT) as journal:
        journal.put({"text": "two"}, "answer", 2)
    file.write_bytes(file.read_bytes()[: len(whole) + keep])
    with Journal(file, ABOUT) as journal:
        assert journal.get("answer", 1) and journal.get("answer", 2) is None
        journal.put({"text": "two"}, "answer", 2)
    with Journal(file, ABOUT) as journal:
        assert journal.get("answer", 2) == {"text": "two"}


def test_a_first_line_that_was_cut_off_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b'{"journ')
    with Journal(tmp_path / "j", ABOUT) as journal:
        journal.put(1, "answer", 1)
    with Journal(tmp_path / "j", ABOUT) as journal:
        assert journal.get("answer", 1) == 1


def test_another_evaluation_is_refused_by_what_differs(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", ABOUT):
        pass
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(UserError, match=r"holds another evaluation \(samples, judge differ\)"):
        Journal(tmp_path / "j", {**ABOUT, "samples": 3, "judge": "x"})
    assert (tmp_path / "j").read_bytes() == before
    with Journal(tmp_path / "j", ABOUT):  # the refused one let go of the lock
        pass


@pytest.mark.parametrize("text", ["hello\n", '{"a": 1}\n', "[]\n", '{"journal": 1}\nno\n'])
def test_a_file_that_is_no_journal_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "j").write_text(text)
    with pytest.raises(UserError, match=r"is no journal of `evaluate`"):
        Journal(tmp_path / "j", {})
    assert (tmp_path / "j").read_text() == text


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", ABOUT), pytest.raises(UserError, match="is in use by another `evaluate`"):
        Journal(tmp_path / "j", ABOUT)


class Full:
    """A file on a disk that has room for a few bytes more."""

    def __init__(self, file: FileIO) -> None:
        self._file = file

    def write(self, line: bytes) -> int:
        return self._file.write(line[:5])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_is_one_line_and_leaves_whole_lines(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", ABOUT) as journal:
        journal.put(1, "answer", 1)
        before = (tmp_path / "j").read_bytes()
        journal._file = Full(journal._file)  # type: ignore[assignment]
        with pytest.raises(UserError, match="takes no more; make room"):
            journal.put(2, "answer", 2)
        assert (tmp_path / "j").read_bytes() == before and journal.get("answer", 2) is None
