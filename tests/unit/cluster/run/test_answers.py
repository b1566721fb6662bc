"""What is said of a part that is dead for good: which one, where, and of what."""

import pytest
from ray.exceptions import ActorDiedError

from cluster.run.answers import answer_or, answers_of, describe_death
from cluster.run.states import RunFailed

TEXT = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: ReplayBuffer\n\tactor_id: 5a\n\tpid: 4711\n"
    "\tname: job/replay-0\n\tnamespace: advgame\n\tip: 10.213.0.2\n"
    "The actor died because its node has died. Node Id: 8ca1"
)


def died(text: str = TEXT) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = text
    return error


def test_a_part_that_is_lost_with_its_node_is_named_and_so_is_the_node() -> None:
    """Of a lost node it was said that "an actor died"."""
    assert describe_death("replay-0", died()) == (
        "replay-0 on node 10.213.0.2 died and is not restarted: ActorDiedError: The actor died because its node has died. Node Id: "
        "8ca1; see "
        "logs/replay-0.log"
    )
    assert describe_death("replay-0", died("it died")).startswith(
        "replay-0 died and is not restarted: ActorDiedError: it died; see "
    )


async def test_the_first_dead_part_of_several_ends_the_run_by_its_name() -> None:
    async def answer() -> int:
        return 7

    async def dead() -> int:
        raise died()

    assert await answers_of({"judge-0": answer(), "judge-1": answer()}) == {"judge-0": 7, "judge-1": 7}
    with pytest.raises(RunFailed, match=r"^judge-1 on node 10\.213\.0\.2 died"):
        await answers_of({"judge-0": answer(), "judge-1": dead()})
    with pytest.raises(RunFailed, match=r"^publisher-0 on node 10\.213\.0\.2 died"):
        await answer_or("publisher-0", dead(), 3)
