"""The sandbox's cache: whole or not there, built once however many ask, and rebuilt when its sources change."""

import re
import threading
import time
from pathlib import Path

import pytest

from cluster.sandbox import cache, judge_cache, store
from cluster.sandbox.cache import content_key, ensure_sandbox
from cluster.sandbox.store import cache_root
from cluster.sandbox.world import heldout_seeds, train_seeds
from cluster.waiting import Note
from protocol.errors import UserError
from protocol.seeds import read_seeds


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands in for the pre-training, which takes 40 s; `tests/integration/cluster/test_sandbox.py` runs the real one."""
    seen: list[Path] = []

    def pretrain(draft: Path, note: Note) -> None:
        seen.append(draft)
        time.sleep(0.1)
        for player in ("attacker", "defender"):
            (draft / player).mkdir()
            (draft / player / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(cache, "_pretrain", pretrain)
    return seen


def test_built_once_and_found_again(builds: list[Path], tmp_path: Path) -> None:
    first = ensure_sandbox(tmp_path)
    assert ensure_sandbox(tmp_path) == first
    assert len(builds) == 1
    assert (first.attacker / "model.safetensors").read_bytes() == b"weights"
    assert (first.defender / "model.safetensors").is_file()
    assert first.root.parent == tmp_path


def test_the_seed_files_hold_the_worlds_seeds(builds: list[Path], tmp_path: Path) -> None:
    paths = ensure_sandbox(tmp_path)
    for path, seeds in ((paths.train_seeds, train_seeds()), (paths.heldout_seeds, heldout_seeds())):
        read, bad = read_seeds(path, "seeds.train")
        assert not bad
        assert [(s.text, s.category) for s in read] == [(s.text, s.category) for s in seeds]


def test_of_two_that_ask_at_once_one_builds(builds: list[Path], tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(ensure_sandbox(tmp_path).root)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(found) == 4
    assert len(set(found)) == len(builds) == 1


def test_a_failed_build_leaves_nothing_and_can_be_repeated(
    builds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as m:
        m.setattr(cache, "_write_seeds", lambda path, seeds: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ensure_sandbox(tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert ensure_sandbox(tmp_path).defender.is_dir()


def test_the_key_follows_the_content(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_key()
    assert content_key() == before
    monkeypatch.setattr(store.importlib.metadata, "version", lambda name: "9.9.9")
    assert content_key() != before


def sources_of(script: str) -> set[str]:
    """The files of the sandbox that a training script runs on: itself and what it imports, in turn."""
    found, todo = set[str](), [f"{script}.py"]
    while todo:
        name = todo.pop()
        found.add(name)
        text = (Path(cache.__file__).parent / name).read_text()
        todo += [f"{module}.py" for module in re.findall(r"from cluster\.sandbox\.(\w+) import", text)]
        todo = [name for name in todo if name not in found]
    return found


def test_the_keys_name_every_file_that_shapes_a_model() -> None:
    assert sources_of("pretrain") == {"world.py", *cache.SOURCES}
    assert sources_of("judge_model") == {"world.py", "rule_judge.py", *judge_cache.SOURCES}


def test_a_cache_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"sandbox cache .*set ADVGAME_CACHE to a writable folder"):
        ensure_sandbox(tmp_path / "file" / "cache")


def test_the_cache_lies_outside_the_checkout_and_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ADVGAME_CACHE", raising=False)
    assert cache_root() == Path.home() / ".cache" / "advgame"
    monkeypatch.setenv("ADVGAME_CACHE", str(tmp_path))
    assert cache_root() == tmp_path


def test_who_waits_is_told_how_many_steps_are_done(tmp_path: Path) -> None:
    setup = "import time; from cluster.sandbox.tiny_qwen import tell_step"
    training = "[tell_step(done, 25) for done in range(1, 22)]; time.sleep(1.5)"
    command = ("timeit", "-n", "1", "-r", "1", "-s", setup, training)
    told: list[str] = []
    store.train_in_processes({"attacker": command}, tmp_path, 1, 60.0, told.append)
    assert told[0] == "attacker is starting" and told[-1] == "attacker step 20 of 25"


def test_a_training_that_is_late_or_fails_is_the_end_of_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"took longer than 0\.1 s"):
        store.train_in_processes({"judge": ("timeit", "-s", "import time", "time.sleep(9)")}, tmp_path, 1, 0.1, print)
    with pytest.raises(RuntimeError, match=r"ended with status 1: .*No module named"):
        store.train_in_processes({"judge": ("cluster.no_such_module",)}, tmp_path, 1, 60.0, print)


def test_who_waits_for_another_process_is_told_so(builds: list[Path], tmp_path: Path) -> None:
    told: list[str] = []
    first = threading.Thread(target=lambda: ensure_sandbox(tmp_path))
    first.start()
    while not builds:
        time.sleep(0.005)
    ensure_sandbox(tmp_path, told.append)
    first.join(timeout=20)
    assert set(told) == {"another process builds it"}
