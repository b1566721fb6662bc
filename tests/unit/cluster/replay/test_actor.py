"""The replay buffer as its callers see it, without Ray: waits, leases, and what a restart keeps."""

import asyncio
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.replay.rules.tally import JudgeCounts, StateCounts
from cluster.replay.stats import RowCounts
from tests.unit.cluster.replay.buffers import Buffers, games_of, played
from tests.unit.cluster.replay.rules.test_facts import SEEDS, record


@pytest.fixture
def buffers(tmp_path: Path) -> Buffers:
    return Buffers(tmp_path)


async def test_games_are_dealt_until_the_bound_and_again_when_a_step_is_executed(buffers: Buffers) -> None:
    b = buffers.open(staleness=1, batch=2)
    assert await played(b, 10) == [0, 1, 2, 3]
    assert await b.deal("w", 10, 0.05) == []
    why = (await b.stats()).admission.why
    assert why == "admitting 0: attacker has 4 unlearned games of 4 allowed at staleness 1"
    waiting = asyncio.create_task(b.deal("w", 10, 5.0))
    for step in range(2):  # asking for step 1 says that step 0 is executed
        for player in ("attacker", "defender"):
            await b.lease(player, step, step, 2, 0.1)  # type: ignore[arg-type]
    assert [d.game_id for d in await waiting] == [4, 5]


async def test_a_step_waits_for_its_games_and_every_rank_gets_the_same(buffers: Buffers) -> None:
    b = buffers.open()
    ranks = [asyncio.create_task(b.lease("defender", 0, 0, 2, 5.0)) for _ in range(2)]
    async with asyncio.timeout(60.0):
        while (await b.stats()).learner_waits["defender"].waiting < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await played(b, 2)
    one, two = [await rank for rank in ranks]
    assert one is not None and one.equals(two) and games_of(one) == [0, 0, 1, 1]
    assert await b.lease("defender", 1, 1, 2, 0.05) is None


async def test_games_that_teach_nothing_give_an_empty_batch_not_a_wait(buffers: Buffers) -> None:
    b = buffers.open()
    await b.deal("w", 2, 0.0)
    await b.finish("w", [record(0, responses=()), record(1, attack=(5.0, 5.0), responses=((None, 2.0),))])
    table = await b.lease("defender", 0, 0, 2, 0.1)
    assert table is not None and table.num_rows == 0
    rows = (await b.stats()).rows
    assert rows["attacker"].evicted == {"tie": 1} and rows["defender"].evicted == {"no_pair": 1}


async def test_one_learner_that_is_done_does_not_hold_up_the_other(buffers: Buffers) -> None:
    b = buffers.open(staleness=0)
    await played(b, 2)
    await b.lease("attacker", 0, 0, 2, 0.1)
    assert await b.deal("w", 2, 0.0) == []
    await b.finished("defender")
    assert await b.deal("w", 2, 0.0) == []  # the attacker still executes its step
    await b.lease("attacker", 1, 1, 2, 0.0)
    assert await played(b, 2, version=1) == [2, 3]
    assert (await b.stats()).rows["defender"].evicted == {"finished": 8}


async def test_stop_ends_the_waits_for_games(buffers: Buffers) -> None:
    b = buffers.open(staleness=0)
    await b.deal("w", 10, 0.0)
    waiting = asyncio.create_task(b.deal("w", 1, 60.0))
    await asyncio.sleep(0.01)
    await b.stop()
    assert await asyncio.wait_for(waiting, 50.0) == []


async def test_learners_that_are_to_stop_get_no_new_games_and_wait_for_none(buffers: Buffers) -> None:
    b = buffers.open()
    waiting = asyncio.create_task(b.lease("defender", 0, 0, 2, 60.0))
    await asyncio.sleep(0.01)
    assert not await b.stopping()
    await b.stop_learners()
    assert await asyncio.wait_for(waiting, 50.0) is None
    await played(b, 2)
    assert await b.stopping() and await b.lease("defender", 0, 0, 2, 60.0) is None
    assert (await b.stats()).rows["defender"].leased == 0


async def test_a_game_is_stored_once(buffers: Buffers) -> None:
    b = buffers.open()
    await b.deal("w", 2, 0.0)
    await b.finish("w", [record(0)])
    await b.finish("other", [record(0), record(1), record(1)])
    stats = await b.stats()
    assert stats.games.finished == 2 and stats.games.late == 2
    assert stats.rows["attacker"].appended == 2 and stats.rows["defender"].appended == 4
    assert stats.states == StateCounts({"ok": 2, "malformed": 2}, {"ok": 4, "too_long": 2})
    assert stats.judge == JudgeCounts(verdicts=16, failed=2, comparisons=10, disagreements=4)


async def test_a_restart_keeps_everything_that_was_confirmed(buffers: Buffers) -> None:
    b = buffers.open(staleness=3)
    await played(b, 7)
    (abandoned,) = await b.deal("w", 1, 0.0)
    await b.abandon("w", abandoned.game_id, "generation_deadline")
    for step in range(3):
        await b.lease("attacker", step, step, 2, 0.1)
    await b.lease("defender", 0, 4, 2, 0.1)  # version 4 with rows of version 0: they go stale
    await b.acknowledge("attacker", 2)
    before, second = await b.stats(), await b.lease("attacker", 2, 2, 2, 0.1)

    b = buffers.open(staleness=3)
    after = await b.stats()
    for key in ("games", "rows", "held_games", "staleness", "states", "judge", "rewards", "versions", "admission"):
        assert getattr(after, key) == getattr(before, key), key
    again = await b.lease("attacker", 2, 2, 2, 0.1)
    assert again is not None and again.equals(second)
    assert await b.rewind("attacker", 2) == 2
    third = await b.lease("attacker", 2, 3, 2, 0.1)
    assert third is not None and games_of(third) == [4, 5]
    assert await b.rewind("defender", 0) == 4


async def test_a_restart_keeps_evictions_of_games_without_rows(buffers: Buffers) -> None:
    b = buffers.open(staleness=0, batch=2)
    deals = await b.deal("w", 2, 0.0)
    await b.finish("w", [record(d.game_id, 0, attack=(5.0, 5.0)) for d in deals])
    assert await b.lease("attacker", 0, 1, 2, 0.05) is None  # at version 1 both ties are stale: two games are wanted
    assert (await b.stats()).held_games == {"attacker": 0, "defender": 2}
    b = buffers.open(staleness=0, batch=2)
    stats = await b.stats()
    assert stats.held_games == {"attacker": 0, "defender": 2}
    assert stats.rows["attacker"].evicted == {"tie": 2}


async def test_unfinished_games_come_back_after_a_restart(buffers: Buffers) -> None:
    b = buffers.open()
    deals = await b.deal("w", 4, 0.0)
    await b.finish("w", [record(deals[k].game_id) for k in (0, 3)])
    b = buffers.open()
    assert [d.game_id for d in await b.deal("v", 4, 0.0)] == [1, 2]
    await b.finish("w", [record(1)])  # the old worker lives and brings its game
    await b.finish("v", [record(1), record(2)])
    stats = await b.stats()
    assert stats.games.finished == 4 and stats.rows["attacker"].appended == 4


async def test_rows_whose_game_was_not_noted_are_used_when_it_is_finished_again(buffers: Buffers) -> None:
    b = buffers.open()
    await played(b, 1)
    journal = buffers.folder / "replay" / "journal.jsonl"
    journal.write_text("")  # killed between the rows and the note
    b = buffers.open()
    assert (await b.stats()).rows["attacker"].appended == 0
    assert await played(b, 1) == [0]
    rows = (await b.stats()).rows
    assert rows["attacker"] == RowCounts(appended=1, free=1, held=1, duplicates=1)
    b = buffers.open()
    assert (await b.stats()).rows["attacker"].appended == 1


async def test_a_step_of_the_wrong_size_is_refused(buffers: Buffers) -> None:
    b = buffers.open()
    with pytest.raises(ValueError, match=r"a lease of 3 games exceeds learners.attacker.batch_games"):
        await b.lease("attacker", 0, 0, 3, 0.1)


async def test_turns_pass_when_their_last_step_is_executed_and_outlive_a_restart(buffers: Buffers) -> None:
    settings: dict[str, Any] = {"staleness": 3, "learners": {"alternate_every": 2}}
    b = buffers.open(**settings, batch=64)
    assert len(await b.deal("w", 1000, 0.0)) == 128  # no more than the turn's two steps, whatever the staleness
    buffers = Buffers(buffers.folder / "second")
    buffers.folder.mkdir()

    settings["learners"] |= {p: {"batch_games": 2} for p in ("attacker", "defender")}
    b = buffers.open(**settings)
    assert await played(b, 10) == [0, 1, 2, 3]
    waiting = asyncio.create_task(b.lease("defender", 0, 0, 2, 5.0))
    for step in range(2):
        got = await b.lease("attacker", step, step, 2, 0.1)
        assert got is not None and games_of(got) == [2 * step, 2 * step + 1]
    assert (await b.stats()).turn == "attacker" and await b.deal("w", 10, 0.0) == []
    assert await b.lease("attacker", 2, 2, 2, 0.01) is None  # says that step 1 is executed: the turn is over
    assert [d.game_id for d in await b.deal("w", 10, 0.0)] == [4, 5, 6, 7]
    await b.finish("w", [record(4), record(5)])
    got = await waiting
    assert got is not None and set(games_of(got)) == {4, 5}
    before = await b.stats()
    assert (
        before.turn == "defender"
        and before.learner_waits["attacker"].on == "attacker waits for the end of the defender's turn"
    )
    assert before.rows["attacker"].evicted == {"turn": 2} and before.rows["defender"].evicted == {"turn": 8}

    b = buffers.open(**settings)
    after = await b.stats()
    for key in ("rows", "held_games", "versions", "turn"):
        assert getattr(after, key) == getattr(before, key), key
    assert [d.game_id for d in await b.deal("w", 10, 0.0)] == [6, 7]
    assert await b.lease("attacker", 2, 2, 2, 0.01) is None
    again = await b.lease("defender", 0, 0, 2, 0.1)
    assert again is not None and again.equals(got)

    assert await b.rewind("attacker", 1) == 2  # its group restarted: the turn is its own again, for one step
    assert (await b.stats()).turn == "attacker"
    again = await b.lease("attacker", 1, 3, 2, 0.1)
    assert again is not None and games_of(again) == [2, 3]


async def test_a_frozen_players_rows_are_counted_and_bound_nothing(buffers: Buffers) -> None:
    b = buffers.open(learners={"attacker": {"train": False, "batch_games": 1}})
    assert await played(b, 10) == [0, 1, 2, 3]
    await b.lease("defender", 0, 0, 2, 0.1)
    await b.lease("defender", 1, 1, 2, 0.1)
    rows = (await b.stats()).rows["attacker"]
    assert (rows.appended, rows.held, rows.evicted) == (4, 0, {"frozen": 4})
    assert await played(b, 10) == [4, 5]


async def test_grpo_learns_from_rows_without_a_pair(buffers: Buffers) -> None:
    b = buffers.open(learners={"attacker": {"batch_games": 2, "loss": "grpo"}})
    await b.deal("w", 2, 0.0)
    await b.finish("w", [record(0, attack=(5.0, 5.0)), record(1, attack=(None, None))])
    table = await b.lease("attacker", 0, 0, 2, 0.1)
    assert table is not None and games_of(table) == [0]
    assert (await b.stats()).rows["attacker"].evicted == {"no_reward": 1}
    b = buffers.open(learners={"attacker": {"batch_games": 2, "loss": "grpo"}})
    assert (await b.stats()).rows["attacker"].evicted == {"no_reward": 1}


def judged(game_id: int, failed: int) -> Any:
    return replace(record(game_id), verdicts=10, verdicts_failed=failed)


def unjudged(game_id: int) -> Any:
    """Its attacks could not be scored, its responses could."""
    return replace(record(game_id, attack=(None, None)), attack_states=("judge_failed", "judge_failed"))


async def test_an_outage_burns_no_steps_and_its_games_free_their_room(buffers: Buffers) -> None:
    b = buffers.open(staleness=0, batch=2)
    for _ in range(3):
        deals = await b.deal("w", 9, 0.0)
        assert len(deals) == 2
        await b.finish("w", [replace(unjudged(d.game_id), groups=unjudged(d.game_id).groups[:1]) for d in deals])
    await b.deal("w", 9, 0.0)
    await b.finish("w", [unjudged(6), record(7)])
    assert await b.lease("attacker", 0, 0, 2, 0.05) is None
    table = await b.lease("defender", 0, 0, 2, 0.1)
    assert table is not None and games_of(table) == [6, 6, 7, 7]  # the attacker's loss is not the defender's
    before = await b.stats()
    assert before.rows["attacker"].evicted == {"judge_failed": 7} and before.held_games["attacker"] == 1
    b = buffers.open(staleness=0, batch=2)
    after = await b.stats()
    assert (after.rows, after.held_games) == (before.rows, before.held_games)
    await b.lease("defender", 1, 0, 2, 0.0)  # it has executed its step
    (deal,) = await b.deal("w", 9, 0.0)
    await b.finish("w", [record(deal.game_id)])
    assert await b.lease("attacker", 0, 0, 2, 0.1) is not None


UNJUDGED = {"faithfulness": False, "attacker_judge": False, "defender_judge": False}


@pytest.mark.parametrize(
    "kind", [{"judge": {"kind": "none"}, "game": UNJUDGED}, {"judge": {"alarm": {"failure_rate": 1.0}}}]
)
async def test_where_no_alarm_can_rise_a_failed_game_is_a_game(buffers: Buffers, kind: dict[str, Any]) -> None:
    b = buffers.open(**kind)
    await b.deal("w", 2, 0.0)
    await b.finish("w", [unjudged(0), unjudged(1)])
    table = await b.lease("attacker", 0, 0, 2, 0.1)
    assert table is not None and table.num_rows == 0
    assert (await b.stats()).rows["attacker"].evicted == {"no_pair": 2}


async def test_a_judge_that_fails_pauses_the_deals_until_a_few_games_come_back_well(buffers: Buffers) -> None:
    alarm = {"window": 40, "pause_s": 1.0, "probe_games": 2}
    settings: dict[str, Any] = {"batch": 8, "judge": {"alarm": alarm}}
    b = buffers.open(**settings)
    await b.deal("w", 4, 0.0)
    began = time.monotonic()
    await b.finish("w", [judged(k, failed=6) for k in range(2)])
    why = "paused: judge failed 12 of the last 20 verdicts, alarm at 25 %; asking again with 2 games"
    assert why in (await b.stats()).admission.why
    assert await b.deal("w", 9, 0.0) == []
    assert [d.game_id for d in await b.deal("w", 9, 50.0)] == [4, 5]
    assert time.monotonic() - began >= 1.0
    await b.worker_gone("w")  # the probe is lost, and so are the games in flight
    assert (await b.deal("v", 9, 0.0)) == []
    assert [d.game_id for d in await b.deal("v", 9, 50.0)] == [2, 3]
    await b.finish("v", [judged(2, failed=0), judged(3, failed=1)])
    assert len(await b.deal("v", 9, 0.0)) == 9
    stats = (await b.stats()).alarm
    assert stats.raised == 1 and stats.up_s == 0 and stats.paused_s >= 2.0 and stats.failure_rate is None

    b = buffers.open(**settings)
    assert (await b.stats()).alarm == stats
    await b.deal("v", 9, 0.0)
    await b.finish("v", [judged(k, failed=6) for k in range(4, 6)])
    assert (await b.stats()).alarm.raised == 2
    b = buffers.open(**settings)  # killed while paused: it asks the judge as if nothing had been
    after = (await b.stats()).alarm
    assert (after.raised, after.up_s, after.paused_s) == (2, 0.0, stats.paused_s)
    assert len(await b.deal("v", 3, 0.0)) == 3


async def test_a_sampler_at_random_gives_every_rank_and_a_restart_the_same_games(buffers: Buffers) -> None:
    b = buffers.open(staleness=4, sampler="uniform")
    await played(b, 10)
    tables = [await b.lease("defender", step, 0, 2, 0.1) for step in (0, 0)]
    assert tables[0].equals(tables[1]) and set(games_of(tables[0])) != {0, 1}
    b = buffers.open(staleness=4, sampler="uniform")
    assert (await b.lease("defender", 0, 0, 2, 0.1)).equals(tables[0])


async def test_a_step_gets_both_categories_and_a_restart_knows_them(buffers: Buffers) -> None:
    b = buffers.open(staleness=4, batch=2)
    await b.deal("w", 10, 0.0)
    kinds = {0: "h0", 1: "h0", 2: "h0", 3: "b0", 4: "b0"}
    seeds = {s.id: s for s in SEEDS}
    for game_id in (0, 2, 4, 3, 1):
        await b.finish("w", [replace(record(game_id, responses=()), seed=seeds[kinds[game_id]])])
    b = buffers.open(staleness=4, batch=2)
    got = [games_of(await b.lease("attacker", step, 0, 2, 0.1)) for step in range(2)]
    assert got == [[0, 3], [1, 4]]
    b = buffers.open(staleness=4, batch=2)
    await b.lease("defender", 0, 0, 2, 0.1)  # the categories of games without a row for it
    lease = json.loads((buffers.folder / "replay" / "journal.jsonl").read_text().splitlines()[-1])
    assert lease["p"] == "defender" and lease["games"] == [0, 3]


async def test_rows_that_the_journal_speaks_of_and_the_disk_lost_are_counted_once(buffers: Buffers) -> None:
    b = buffers.open(staleness=4)
    await played(b, 3)
    segment = buffers.folder / "replay" / "defender-000000.arrow"
    whole = segment.read_bytes()
    await b.finish("w", [record(d.game_id) for d in await b.deal("w", 2, 0.0)])
    segment.write_bytes(
        whole
    )  # a power cut: the notes of games 3 and 4 reached the disk, their four defender rows did not
    b = buffers.open(staleness=4)
    rows = (await b.stats()).rows
    assert (rows["defender"].lost, rows["defender"].lost_at_least, rows["attacker"].lost) == (4, False, 0)
    assert rows["defender"].appended == 6 and rows["attacker"].appended == 3
    b = buffers.open(staleness=4)
    assert (await b.stats()).rows["defender"].lost == 4
    assert await played(b, 2) == [3, 4]  # they are played again
    b = buffers.open(staleness=4)
    rows = (await b.stats()).rows
    assert [(rows[p].appended, rows[p].lost) for p in ("attacker", "defender")] == [(5, 0), (10, 4)]


async def test_a_torn_tail_after_a_power_cut_is_a_lower_limit(buffers: Buffers) -> None:
    b = buffers.open()
    await played(b, 1)
    with (buffers.folder / "replay" / "attacker-000000.arrow").open("ab") as file:
        file.write(bytes(1000))
    rows = (await buffers.open().stats()).rows["attacker"]
    assert (rows.lost, rows.lost_at_least, rows.appended) == (1, True, 1)


def cut_power(buffers: Buffers, player: str, nbytes: int) -> None:
    """The journal reached the disk, the last rows of the player did not."""
    os.truncate(buffers.folder / "replay" / f"{player}-000000.arrow", nbytes)


def length(buffers: Buffers, player: str) -> int:
    return (buffers.folder / "replay" / f"{player}-000000.arrow").stat().st_size


@pytest.mark.parametrize("second", [((7.0, 5.0),), ((7.0, 5.0), (3.0, 1.0), (9.0, 8.0)), ()])
async def test_a_game_that_is_dealt_again_is_learned_once_as_it_was_finished(
    buffers: Buffers, second: tuple[tuple[float, float], ...]
) -> None:
    b = buffers.open(batch=2)
    await played(b, 1)
    before = length(buffers, "attacker")
    await b.finish("w", [record(d.game_id) for d in await b.deal("w", 1, 0.0)])  # game 1 has two rows for the defender
    cut_power(buffers, "attacker", before)
    b = buffers.open(batch=2)
    assert [d.game_id for d in await b.deal("w", 1, 0.0)] == [1]
    await b.finish("w", [record(1, attack=(6.0, 4.0), responses=second)])  # the second play comes out otherwise

    for _ in range(2):  # restarts
        stats = await b.stats()
        assert stats.games.finished == 2
        assert (stats.rows["attacker"].appended, stats.rows["defender"].appended) == (2, 2 + len(second))
        got = await b.lease("defender", 0, 0, 2, 0.1)
        assert got is not None and games_of(got) == [0, 0, *[1] * len(second)]
        rewards = [[item["reward"] for item in row] for row in got.column("items").to_pylist()[2:]]
        assert rewards == [list(pair) for pair in second], "the row of an earlier play is learned"
        b = buffers.open(batch=2)
        assert [d.game_id for d in await b.deal("w", 2, 0.0)] == [2, 3], "a game that is over is dealt again"
    assert (await b.stats()).rows["defender"].duplicates == 2, "what the first play left"


async def test_two_power_cuts_and_rows_in_the_same_place_leave_the_last_play(buffers: Buffers) -> None:
    b = buffers.open(batch=2)
    await played(b, 1)
    before = {p: length(buffers, p) for p in ("attacker", "defender")}
    for play in (((8.0, 1.0),), ((2.0, 1.0),), ((8.0, 1.0), (6.0, 3.0))):
        (deal,) = await b.deal("w", 1, 0.0)
        assert deal.game_id == 1
        await b.finish("w", [record(1, responses=play)])
        if len(play) == 1:
            for player, nbytes in before.items():
                cut_power(buffers, player, nbytes)
            b = buffers.open(batch=2)
    b = buffers.open(batch=2)
    rows = (await b.stats()).rows
    assert (rows["attacker"].appended, rows["defender"].appended, rows["defender"].duplicates) == (2, 4, 0)
    got = await b.lease("defender", 0, 0, 2, 0.1)
    assert got is not None and games_of(got) == [0, 0, 1, 1]


async def test_a_journal_that_names_no_rows_is_read_as_before(buffers: Buffers) -> None:
    b = buffers.open(batch=2)
    await played(b, 2)
    before = await b.stats()
    journal = buffers.folder / "replay" / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("".join(json.dumps({k: v for k, v in e.items() if k != "at"}) + "\n" for e in events))
    after = await buffers.open(batch=2).stats()
    assert (after.rows, after.games, after.rewards) == (before.rows, before.games, before.rewards)
