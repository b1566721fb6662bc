"""Room on a cluster, its nodes' folders, and a run's name there: what is refused, in one line and with nothing written, and what is
waited for."""

import re
from pathlib import Path

import pytest

from tests.e2e.runs import summary_of
from tests.nodes.cluster import RayNodes

REFUSE_S = 240.0
RUN_S = 900.0


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.timeout(900)
def test_a_run_directory_that_a_node_does_not_see_is_refused_before_an_engine_starts(
    nodes: RayNodes, tmp_path: Path
) -> None:
    """R35: a node with a folder of its own at that path would lose what its parts write."""
    nodes.add(cpus=3)
    alone = nodes.add(cpus=3, hide=tmp_path)
    job = nodes.submit(tmp_path / "runs", "unshared")
    said = job.refused(REFUSE_S)
    (line,) = [line for line in said.splitlines() if "run.dir:" in line]
    assert f"node {nodes.network.address(alone)}: what the driver writes there does not appear" in line
    assert "engines" not in said and names_in(tmp_path) == []


@pytest.mark.timeout(1500)
def test_a_name_that_a_run_on_the_cluster_has_is_refused_wherever_its_directory_is(
    nodes: RayNodes, tmp_path: Path
) -> None:
    """REPORTS: two jobs with one run.name and different run.dir; the parts of both would have the same names."""
    nodes.add(cpus=12)
    first = nodes.submit(tmp_path / "one", "same", **{"run.steps": 3})
    first.places()
    second = nodes.submit(tmp_path / "two", "same")
    said = second.refused(REFUSE_S)
    assert len([line for line in said.splitlines() if "run.name: same is the name of a run" in line]) == 1, said
    assert not (tmp_path / "two").exists()
    assert first.end(RUN_S), first.output
    assert summary_of(first.run)["status"] == "finished"


@pytest.mark.timeout(1500)
def test_room_is_waited_for_with_words_and_taken_when_a_node_joins(nodes: RayNodes, tmp_path: Path) -> None:
    """R36: a cluster that grows was refused at the first look."""
    nodes.add(cpus=3)
    job = nodes.submit(tmp_path, "patient", **{"run.steps": 2, "run.placement_s": 300})
    job.wait_for(r"waiting for room on the cluster: 5\.2 CPUs are needed, the cluster has \d[\d.]* CPUs free", 120)
    assert names_in(tmp_path) == [], "nothing is written while it waits"
    nodes.add(cpus=3)
    assert job.end(RUN_S), job.output
    assert len(set(job.places().values())) == 2


@pytest.mark.timeout(900)
def test_room_that_does_not_come_is_one_line_with_what_is_short(nodes: RayNodes, tmp_path: Path) -> None:
    nodes.add(cpus=3)
    said = nodes.submit(tmp_path, "hopeless", **{"run.placement_s": 10}).refused(REFUSE_S)
    (line,) = [line for line in said.splitlines() if "placement:" in line]
    assert re.search(
        r"needs 5\.2 CPUs at once, the cluster has [\d.]+ free; .*\(waited 1\d s for it; run\.placement_s\)", line
    )
    assert names_in(tmp_path) == []


@pytest.mark.timeout(1500)
def test_of_two_runs_that_have_room_one_by_one_both_run(nodes: RayNodes, tmp_path: Path) -> None:
    """R34: each would hold what the other lacks, and neither would start."""
    nodes.add(cpus=6)
    jobs = [nodes.submit(tmp_path, name, **{"run.steps": 2, "run.placement_s": 600}) for name in ("a", "b")]
    ended = [job.end(RUN_S) for job in jobs]
    assert ended == [True, True], "".join(job.output for job in jobs)
