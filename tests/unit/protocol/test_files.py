"""Files and folders that are whole or not there, also where the writer is cut off in the middle."""

from collections.abc import Callable
from pathlib import Path

import pytest

from protocol import files
from protocol.files import commit_folder, make_folder, open_file, write_file, write_json


class Cut(BaseException):
    """The writer ends here: no `except Exception` stops it."""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths in the order in which they were synced; what is synced must be there under its name of that moment."""
    paths: list[Path] = []
    sync = files.sync_path

    def note(path: Path) -> None:
        sync(path)
        paths.append(path)

    monkeypatch.setattr(files, "sync_path", note)
    return paths


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_replaces_the_old_one_and_its_name_is_synced(tmp_path: Path, synced: list[Path]) -> None:
    file = tmp_path / "a.json"
    write_file(file, "old")
    write_json(file, {"new": 1})
    assert file.read_text() == '{\n  "new": 1\n}\n'
    assert names(tmp_path) == {"a.json"} and synced == [tmp_path, tmp_path]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"new": float("nan")})
    assert file.read_text() == '{\n  "new": 1\n}\n'


def test_a_file_whose_writer_is_cut_off_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_file(file, b"old")
    with pytest.raises(Cut), open_file(file) as out:
        out.write(b"half")
        out.flush()
        assert file.read_bytes() == b"old"
        raise Cut
    assert file.read_bytes() == b"old" and names(tmp_path) == {"a"}


def test_a_folder_appears_whole_and_everything_in_it_is_synced_before(tmp_path: Path, synced: list[Path]) -> None:
    target = tmp_path / "deep" / "model"
    with make_folder(target) as draft:
        (draft / "in").mkdir()
        (draft / "in" / "b").write_text("b")
        (draft / "dangling").symlink_to("nowhere")
        assert not target.exists()
    assert names(target) == {"in", "dangling"} and names(target.parent) == {"model"}
    under_draft = [path.relative_to(draft) for path in synced[:-1]]
    assert sorted(map(str, under_draft)) == [".", "in", "in/b"] and synced[-1] == target.parent


def test_a_folder_whose_writer_is_cut_off_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Cut), make_folder(tmp_path / "model") as draft:
        (draft / "half").touch()
        raise Cut
    assert names(tmp_path) == set()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: write_file(path, "x")], ids=["an empty folder", "a file"])
def test_what_is_there_is_not_replaced_without_being_told(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model")
    with pytest.raises(FileExistsError), make_folder(tmp_path / "model"):
        pytest.fail("the block was entered")
    assert names(tmp_path) == {"model"}


def test_of_two_that_write_at_once_the_first_wins_and_the_drafts_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(FileExistsError), make_folder(target) as second:
        (second / "mine").touch()
        with make_folder(target) as first:
            (first / "theirs").touch()
    assert names(target) == {"theirs"} and names(tmp_path) == {"model"}


def test_the_old_folder_is_there_until_all_of_the_new_one_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    with make_folder(target) as draft:
        (draft / "old").touch()
    sync = files.sync_path

    def check(path: Path) -> None:
        if path != tmp_path:
            assert names(target) == {"old"}, f"the old one was gone while {path.name} was synced"
        sync(path)

    monkeypatch.setattr(files, "sync_path", check)
    (tmp_path / ".model.cut-off.tmp").mkdir()
    with make_folder(target, replace=True) as draft:
        (draft / "new").touch()
    assert names(target) == {"new"} and names(tmp_path) == {"model"}


def test_a_draft_that_several_filled_gets_its_name_when_one_says_so(tmp_path: Path, synced: list[Path]) -> None:
    draft = tmp_path / "step-1.tmp"
    draft.mkdir()
    for rank in range(2):
        (draft / f"shard-{rank}").touch()
    commit_folder(draft, tmp_path / "step-1")
    assert names(tmp_path) == {"step-1"}
    assert synced[-1] == tmp_path and {path.name for path in synced[:-1]} == {"shard-0", "shard-1", "step-1.tmp"}
