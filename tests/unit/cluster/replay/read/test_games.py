"""`games.md`: which games are in it, and that what a model wrote cannot become Markdown."""

from pathlib import Path

from cluster.replay.read.games import choose, write_games
from cluster.rundir import RunDir
from tests.unit.cluster.replay.buffers import Buffer
from tests.unit.cluster.replay.read.test_show import buffer, run
from tests.unit.cluster.replay.rules.test_facts import SEEDS

__all__ = ["buffer", "run"]


def test_the_first_and_the_last_games_are_chosen() -> None:
    assert choose([1, 2, 3], 5) == [1, 2, 3]
    assert choose(list(range(10)), 4) == [0, 1, 8, 9]
    assert choose(list(range(10)), 5) == [0, 1, 2, 8, 9]
    assert choose(list(range(10)), 1) == [0] and choose([], 3) == []


def test_finished_games_are_written_with_their_seeds_states_and_rewards(run: Path, buffer: Buffer) -> None:
    run_dir = RunDir(run)
    written = write_games(run_dir, SEEDS, 4)
    text = run_dir.games.read_text()
    assert written == 4 and text.startswith("# 4 of 6 games of night\n")
    assert text.count("## Game ") == 4 and "## Game 17" not in text, "a game that never ended is none"
    assert "too_long, reward -1.0" in text and "Response 1 of Defender v" in text
    assert any(f"\n    {seed.text}\n" in text for seed in SEEDS)


def test_a_text_stays_a_text(run: Path, buffer: Buffer) -> None:
    from cluster.replay.read.games import _quote

    said = "# Title\n<script>x</script>\x1b[31m\n\n" + "word " * 60
    lines = _quote(said)
    assert all(line.startswith("    ") or not line for line in lines) and max(map(len, lines)) <= 114
    assert "\x1b" not in "".join(lines) and _quote("") == ["    (nothing)"]


def test_without_a_finished_game_there_is_no_file(run: Path) -> None:
    (run / "replay").mkdir()
    assert write_games(RunDir(run), SEEDS, 4) == 0 and not RunDir(run).games.exists()
