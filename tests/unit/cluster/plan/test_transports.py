"""Which way versions travel: what `auto` chooses, what is refused, and what vLLM's own senders are told."""

from typing import Any

import pytest

from cluster.plan.transports import transports_of
from cluster.publish.native import make_init_info
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe


def recipe(per_worker: float, per_rank: float, ranks: int = 1, workers: int = 1, **push: Any) -> Recipe:
    learner = {"gpus_per_rank": per_rank, "ranks": ranks}
    return parse_recipe(
        {
            "judge": {"kind": "rules"},
            "generation": {"gpus_per_worker": per_worker, "workers": workers},
            "learners": {"attacker": learner, "defender": learner | {"train": False}},
            "push": push,
        }
    )


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        (recipe(0, 0), "host"),
        (recipe(0.25, 0.25), "host"),  # one card: ipc could
        (recipe(1, 1, ranks=8, workers=4), "host"),  # nccl could
        (recipe(0.25, 0.25, transport="ipc"), "ipc"),
        (recipe(1, 1, ranks=8, workers=4, transport="nccl"), "nccl"),
        (recipe(1, 1, transport="host"), "host"),
    ],
)
def test_auto_is_host_and_the_others_are_taken_by_name(given: Recipe, chosen: str) -> None:
    assert transports_of(given) == {"attacker": chosen}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"per_worker": 0, "per_rank": 1, "transport": "nccl"},
            "push.transport: nccl needs a GPU on both sides, generation.gpus_per_worker is 0",
        ),
        (
            {"per_worker": 1, "per_rank": 0, "transport": "ipc"},
            "ipc needs a GPU on both sides, learners.attacker.gpus_per_rank is 0",
        ),
        (
            {"per_worker": 1, "per_rank": 0.5, "transport": "nccl"},
            "nccl needs a whole GPU for each process, learners.attacker.gpus_per_rank is 0.5",
        ),
        (
            {"per_worker": 1, "per_rank": 1, "transport": "ipc"},
            "ipc needs everything on one GPU, the recipe asks for 3",
        ),
        (
            {"per_worker": 0.2, "per_rank": 0.2, "ranks": 2, "transport": "ipc"},
            "ipc needs one learner rank, learners.attacker.ranks is 2",
        ),
        (
            {"per_worker": 1, "per_rank": 1, "workers": 2, "to": "spread", "transport": "nccl"},
            "to all workers at once, push.to is spread",
        ),
    ],
)
def test_a_transport_that_cannot_work_is_refused_in_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        recipe(**settings)
    text = str(refused.value)
    assert says in text and text.endswith("; set it to auto or host") and "\n" not in text


def test_vllm_is_told_that_the_learner_is_one_process_of_the_group() -> None:
    info = make_init_info("nccl", 5, "10.0.0.1", 4711)
    assert (info.backend, info.is_sender, info.world_size) == ("nccl", True, 5)
    assert (info.master_address, info.master_port) == ("10.0.0.1", 4711)
    info = make_init_info("ipc", 2, "10.0.0.1", 4711)
    assert (info.backend, info.is_sender, info.packed) == ("ipc", True, False)
