"""Whether a run directory is shared, without a Ray: what a node finds, and what is left of the look."""

from pathlib import Path
from typing import Any

import pytest

from cluster.plan.places import Node
from cluster.run import shared
from cluster.run.shared import check_shared, look_from_node, refuse_unshared
from cluster.rundir import RunDir
from protocol.errors import UserError

OTHER = Node("ab" * 28, "10.0.0.2")


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_node_reads_what_the_driver_wrote_and_leaves_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "driver").write_text("7f3a")
    assert look_from_node(str(tmp_path), "7f3a", "n2").problem == ""
    assert (tmp_path / "n2").read_text() == "7f3a"


def test_a_node_with_another_folder_of_that_name_or_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "driver").write_text("another")
    assert look_from_node(str(tmp_path), "7f3a", "n2").problem == "another folder of that name is there"
    gone = look_from_node(str(tmp_path / "nowhere"), "7f3a", "n2").problem
    assert gone == "what the driver writes there does not appear"


def test_the_nodes_that_do_not_see_it_are_named_in_one_line() -> None:
    refuse_unshared(Path("/runs"), {"10.0.0.2": "", "10.0.0.3": ""})
    problems = {f"10.0.0.{k}": "it is not there" for k in range(2, 8)} | {"10.0.0.9": ""}
    with pytest.raises(UserError) as refused:
        refuse_unshared(Path("/runs"), problems)
    told = str(refused.value)
    assert told.startswith("run.dir: /runs is not shared by all nodes (node 10.0.0.2: it is not there; node 10.0.0.3: ")
    assert "and 3 more nodes" in told and "10.0.0.9" not in told and "\n" not in told


@pytest.mark.parametrize("sees", [True, False])
async def test_nothing_is_left_of_the_look_not_even_a_new_folder(
    sees: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def ask(node: Node, probe: Path, token: str) -> str:
        assert (probe / "driver").read_text() == token
        asked.append(node.address)
        return look_from_node(str(probe), token, node.id).problem if sees else "it is not there"

    monkeypatch.setattr(shared, "list_other_nodes", lambda: [OTHER])
    monkeypatch.setattr(shared, "_ask", ask)
    run_dir = RunDir(tmp_path / "new" / "runs" / "a")
    if sees:
        await check_shared(run_dir)
    else:
        with pytest.raises(UserError, match=r"run\.dir: .* is not shared by all nodes \(node 10\.0\.0\.2"):
            await check_shared(run_dir)
    assert asked == ["10.0.0.2"]
    assert names_in(tmp_path) == []


async def test_a_run_on_one_node_asks_nobody_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(*_: Any) -> str:
        raise AssertionError("asked")

    monkeypatch.setattr(shared, "list_other_nodes", list)
    monkeypatch.setattr(shared, "_ask", ask)
    await check_shared(RunDir(tmp_path / "runs" / "a"))
    assert names_in(tmp_path) == []


async def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "list_other_nodes", lambda: [OTHER])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^run\.dir: .*file cannot be written"):
        await check_shared(RunDir(tmp_path / "file" / "a"))
