"""The files of a stall's folder: one a role, whatever its node said or did not say."""

from cluster.observe.stacks import Process
from cluster.run.stall import NodeDump, report


def process(role: str, node: str) -> Process:
    return Process(role, 7, 1, f"{node}-id-long", node, 3)


PROCESSES = [process("driver-0", "a"), process("judge-0", "b"), process("replay-0", "a")]


def test_each_role_has_a_file_and_each_node_its_gpus() -> None:
    nodes = {
        "a-id-long": NodeDump({"driver-0": "stack of driver\n", "replay-0": "stack of replay\n"}, "none\n"),
        "b-id-long": NodeDump({"judge-0": "stack of judge\n"}, "80 %\n"),
    }
    files = report(PROCESSES, nodes, {"judge-0": "3 x\n    here"}, 18.0)
    assert set(files) == {"driver-0.txt", "judge-0.txt", "replay-0.txt", "gpu-a-a-id-l.txt", "gpu-b-b-id-l.txt"}
    assert files["judge-0.txt"] == (
        "judge-0, process 7 on node b\n\n== where its tasks wait ==\n3 x\n    here\n\nstack of judge\n"
    )
    assert "tasks wait" not in files["driver-0.txt"] and files["gpu-b-b-id-l.txt"] == "80 %\n"


def test_a_node_that_does_not_answer_is_said_in_its_files() -> None:
    files = report(PROCESSES, {"a-id-long": NodeDump({"driver-0": "x\n"}, "none\n")}, {}, 18.0)
    assert files["judge-0.txt"].endswith("no stacks: node b did not answer within 18 s\n")
    assert files["replay-0.txt"].endswith("no stacks: its node does not know it\n")
    assert files["gpu-b-b-id-l.txt"] == "not told: the node did not answer\n"
