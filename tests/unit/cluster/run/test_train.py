"""How the end of a drive becomes a note, a word in the summary and an exit status."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.exits import RunEnd
from cluster.run import train
from cluster.run.session import Interrupted
from cluster.run.states import RunFailed
from cluster.rundir import RunDir
from learners.storage import checkpoints, inventory
from protocol.errors import UserError
from protocol.recipe import LearnerConfig


@pytest.mark.parametrize(
    ("raised", "end", "status", "note"),
    [
        (UserError("seeds.train: gone; put it back"), RunEnd.MISTAKEN, 2, "seeds.train: gone; put it back"),
        (RunFailed("no engine"), RunEnd.FAILED, 1, "no engine"),
        (ValueError("what a model wrote"), RunEnd.FAILED, 1, "ValueError; logs/driver-0.log says where"),
        (Interrupted("SIGTERM"), RunEnd.INTERRUPTED, 130, "SIGTERM"),
    ],
)
def test_each_end_has_its_status_and_its_words(
    raised: BaseException, end: RunEnd, status: int, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[RunEnd, str]] = []

    class Run:
        async def drive(self) -> None:
            raise raised

        def summary(self, end: RunEnd, note: str) -> dict[str, Any]:
            ends.append((end, note))
            return {"heldout": {}, "note": note}

    said: list[str] = []
    progress: Any = SimpleNamespace(say=said.append, console=SimpleNamespace(print=lambda _: None))
    monkeypatch.setattr(train, "run_table", lambda _: None)
    monkeypatch.setattr(train, "_write_cards", lambda *_: None)

    assert train._drive(Run(), progress, RunDir(tmp_path)) == status  # type: ignore[arg-type]
    assert ends == [(end, note)] and end.resumable
    assert said[0] == f"{end.word}: {note}" and "--resume" in said[1]


def test_a_person_who_resumes_is_told_which_checkpoint_is_damaged_and_which_takes_its_place(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    for step in (5, 10):
        folder = run_dir.checkpoints("attacker") / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "rank-0.pt").write_bytes(b"12345")
        facts = inventory.sync_and_describe(folder, [folder / "rank-0.pt"])
        checkpoints.write_meta(folder, step=step, version=step, ranks=1, config=LearnerConfig(), files=facts)
    assert train.tell_damage(run_dir) == []
    (run_dir.checkpoints("attacker") / "step-10" / "rank-0.pt").write_bytes(b"123")
    assert train.tell_damage(run_dir) == [
        "checkpoints: attacker/step-10 is damaged (rank-0.pt has 3 bytes and should have 5): step-5 takes its place"
    ]
