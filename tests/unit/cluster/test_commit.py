"""Group commit: whatever becomes of a sync, nobody waits for ever."""

import asyncio

import pytest

from cluster.commit import GroupCommit


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("file is closed"), RuntimeError("no thread")])
async def test_whatever_a_sync_raises_is_raised_in_every_waiter_and_the_next_one_is_served(error: Exception) -> None:
    raises = [error]

    def sync() -> None:
        if raises:
            raise raises.pop()

    commits = GroupCommit(sync, 0.01)
    async with asyncio.timeout(10.0):
        ended = await asyncio.gather(*(commits.commit() for _ in range(3)), return_exceptions=True)
        assert ended == [error] * 3
        await commits.commit(hurry=True)


async def test_where_the_commit_is_cancelled_its_waiters_are_too() -> None:
    commits = GroupCommit(lambda: None, 60.0)
    waiting = asyncio.create_task(commits.commit())
    await asyncio.sleep(0.01)
    assert commits._task is not None
    commits._task.cancel()
    done, _ = await asyncio.wait([waiting], timeout=10.0)
    assert done and waiting.cancelled()
