"""`python -m cluster replay RUN`: what it shows, what it keeps to itself, and what it writes."""

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.cli.app import main
from cluster.console import escape
from cluster.inputs.recipe_file import dump_recipe
from cluster.plan.replay import plan_replay
from cluster.replay.read.reader import read_replay
from protocol.roles import PLAYERS
from protocol.types import GameRecord
from tests.unit.cluster.cli.test_cli import run as fails
from tests.unit.cluster.replay.buffers import Buffer, recipe
from tests.unit.cluster.replay.rules.test_facts import SEEDS, record

SETTINGS: dict[str, Any] = {"staleness": 1, "batch": 2, "fsync_s": 0.0}


def benign(game: GameRecord) -> GameRecord:
    """The same with a benign seed, and an attack that was cut off."""
    groups = []
    for group in game.groups:
        items = list(group.items)
        if group.player == "attacker":
            items[1] = replace(items[1], state="too_long", reward=-1.0)
        groups.append(replace(group, category="benign", items=tuple(items)))
    return replace(game, groups=tuple(groups), seed=SEEDS[-1])


async def live(folder: Path) -> Buffer:
    """A run that goes on: steps 0 and 1 of the attacker are learned, step 2 is leased, a tie and stale rows are evicted."""
    b = Buffer(str(folder), plan_replay(recipe(**SETTINGS)), SEEDS)
    for step in range(3):
        deals = await b.deal("w", 2, 0.0)
        games = [record(deals[0].game_id, step), benign(record(deals[1].game_id, step))]
        if step == 1:
            games[0] = record(deals[0].game_id, step, attack=(5.0, 5.0))
        await b.finish("w", games)
        for player in PLAYERS:
            if step < 2 or player == "attacker":
                await b.lease(player, step, step, 2, 0.1)
    await b.acknowledge("attacker", 2)
    await b.lease("defender", 2, 4, 2, 0.0)  # its rows of version 2 are stale at version 4
    b._store("attacker", [record(17, 2)])  # a game that is not noted yet
    return b


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "night"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe(**SETTINGS)))
    return folder


@pytest.fixture
def buffer(run: Path) -> Buffer:
    return asyncio.run(live(run))


def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: object) -> str:
    monkeypatch.setattr(sys, "argv", ["cluster", "replay", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    return capsys.readouterr().out


def cells(shown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if line[:1] == "│"]


def test_the_counts_are_the_live_buffers(
    buffer: Buffer, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path: path.read_bytes() for path in (run / "replay").iterdir()}
    stats = asyncio.run(buffer.stats())
    stored = read_replay(run)
    for player in PLAYERS:
        rows = [row for row in stored.rows() if row.player == player]
        counts = {s: sum(row.fate.status == s for row in rows) for s in ("learned", "leased", "waiting", "evicted")}
        counted = stats.rows[player]
        assert counts == {
            "learned": counted.learned,
            "leased": counted.leased,
            "waiting": counted.free,
            "evicted": sum(counted.evicted.values()),
        }
    lines = cells(cli(capsys, monkeypatch, run))
    assert lines[0] == ["attacker", "6 (+1 of open games)", "3", "2", "0", "1 tie", "mean 0.00, max 0", "0", "1", "0.0"]
    assert lines[1][:7] == ["defender", "12", "0", "8", "0", "4 stale", "mean 0.00, max 0"]
    assert lines[2] == ["attacker", "harmful", "4", "1", "8 ok"]
    assert lines[3] == ["attacker", "benign", "3", "2", "3 ok, 3 too_long"]
    assert {path: path.read_bytes() for path in (run / "replay").iterdir()} == files, "it reads only, and takes no lock"


@pytest.mark.parametrize(
    ("args", "rows"),
    [
        (["--player", "attacker", "--step", "0:1"], ["0/attacker/0", "1/attacker/0", "3/attacker/0"]),
        (["--player", "attacker", "--step", "2"], ["4/attacker/0", "5/attacker/0"]),
        (["--player", "attacker", "--step", "1:"], ["3/attacker/0", "4/attacker/0", "5/attacker/0"]),
        (["--state", "too_long"], ["1/attacker/0", "3/attacker/0", "5/attacker/0"]),
        (["--category", "benign", "--player", "defender", "--limit", "2"], ["1/defender/0", "1/defender/1"]),
        (["--game", "2"], ["2/attacker/0", "2/defender/0", "2/defender/1"]),
        (["--game", "99"], []),
    ],
)
def test_rows_are_selected(
    args: list[str],
    rows: list[str],
    buffer: Buffer,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [line[0] for line in cells(cli(capsys, monkeypatch, run, *args))[6:]] == rows


def test_a_row_says_what_became_of_it_and_texts_only_if_asked(
    buffer: Buffer, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    became = {line[0]: line[4] for line in cells(cli(capsys, monkeypatch, run, "--limit", "100"))[6:]}
    assert became["0/attacker/0"] == "learned, step 0, 0 stale"
    assert became["4/attacker/0"] == "leased, step 2, 0 stale"
    assert became["2/attacker/0"] == "evicted: tie" and became["5/defender/1"] == "evicted: stale"
    assert became["17/attacker/0"] == "unfinished"
    shown = cli(capsys, monkeypatch, run, "--game", "1", "--player", "attacker")
    assert "ok 9.0, too_long -1.0" in shown and "text" not in shown
    shown = cli(capsys, monkeypatch, run, "--game", "1", "--player", "attacker", "--text")
    assert "ok 9.0: text 0" in shown and "too_long -1.0: text 1" in shown


def test_what_a_model_wrote_cannot_steer_the_terminal() -> None:
    assert escape("a\x1b[2Jb\nc\u202ed é") == "a\\x1b[2Jb\\nc\\u202ed é"


READERS: dict[str, Any] = {
    "parquet": lambda path: pq.read_table(path).to_pylist(),
    "arrow": lambda path: pa.ipc.open_file(path).read_all().to_pylist(),
    "jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
}


@pytest.mark.parametrize("kind", READERS)
def test_an_export_has_the_rows_and_their_fate_and_text_only_if_asked(
    kind: str,
    buffer: Buffer,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / f"rows.{kind}"
    assert f"{file}: 19 rows, without texts" in cli(capsys, monkeypatch, run, "--export", file).replace("\n", "")
    rows = {row["row_id"]: row for row in READERS[kind](file)}
    assert len(rows) == 19 and b"text 0" not in file.read_bytes()
    keys = ("category", "status", "why", "step", "staleness")
    assert [rows["3/attacker/0"][k] for k in keys] == ["benign", "learned", None, 1, 0]
    assert [rows["2/attacker/0"][k] for k in keys] == ["harmful", "evicted", "tie", None, None]
    assert not {"prompt_ids", "verdicts"} & set(rows["3/attacker/0"])
    assert set(rows["3/attacker/0"]["items"][0]) == {"logprobs", "state", "reward", "first_version", "last_version"}
    assert rows["3/attacker/0"]["items"][1]["state"] == "too_long"

    before = file.read_bytes()
    error = fails(capsys, monkeypatch, "replay", str(run), "--export", str(file))
    assert "rows." in error and "exists; name another file, or replace it with --force" in error
    assert file.read_bytes() == before
    cli(capsys, monkeypatch, run, "--export", file, "--force", "--text", "--game", 4, "--limit", 2)
    (first, second) = READERS[kind](file)
    assert (first["row_id"], second["row_id"]) == ("4/attacker/0", "4/defender/0")
    assert [first["items"][0][k] for k in ("text", "token_ids")] == ["text 0", [3, 4, 0]]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [file.name], "nothing half written is left"


def test_a_run_that_has_not_begun_holds_nothing(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = cells(cli(capsys, monkeypatch, run))
    assert lines[0] == ["attacker", "0", "0", "0", "0", "none", "-", "0", "0", "0.0"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--player", "referee"], "--player: referee is unknown; give one of attacker, defender"),
        (["--category", "odd"], "--category: odd is unknown; give one of harmful, benign"),
        (["--state", "lost"], "--state: lost is unknown; give one of ok, too_long, malformed"),
        (["--step", "x"], "--step: 'x' is no range of steps; write it as 10:20"),
        (["--step", "5:2"], "--step: 5:2 ends before it begins"),
        (["--export", "rows.csv"], "--export: rows.csv is of no known kind; end its name in one of .parquet, .jsonl"),
        (["--export", "/nowhere/rows.jsonl"], "is no file in an existing folder"),
    ],
)
def test_a_mistake_is_one_line(
    args: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in fails(capsys, monkeypatch, "replay", str(run), *args)


def test_what_is_no_run_and_what_is_damaged_is_said(
    buffer: Buffer, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is no run (it has no recipe.yaml)" in fails(capsys, monkeypatch, "replay", str(run.parent))
    journal = run / "replay" / "journal.jsonl"
    journal.write_text("nonsense\n" + journal.read_text())
    assert "journal.jsonl: line 1 is damaged" in fails(capsys, monkeypatch, "replay", str(run))
