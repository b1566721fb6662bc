"""Where an event loop's tasks wait."""

import asyncio

from cluster.observe.tasks import describe_tasks


async def wait_inside(event: asyncio.Event) -> None:
    await event.wait()


async def play(event: asyncio.Event) -> None:
    await wait_inside(event)


async def test_tasks_that_wait_at_one_place_are_one_entry() -> None:
    event = asyncio.Event()
    tasks = [asyncio.create_task(play(event)) for _ in range(3)]
    await asyncio.sleep(0)
    said = describe_tasks()
    assert said.count("3 x") == 1 and said.count("play") == 1
    assert said.index("play") < said.index("wait_inside") < said.index("Event.wait"), "the innermost last"
    assert "test_tasks_that_wait" not in said, "not the one that asks"
    event.set()
    await asyncio.gather(*tasks)
    assert describe_tasks() == "no tasks"
