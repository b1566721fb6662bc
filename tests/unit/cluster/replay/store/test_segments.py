"""Segments and journal on a real disk: readable while they grow, whole after a crash."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from cluster.replay.store import segments
from cluster.replay.store.journal import Journal, read_events
from cluster.replay.store.segment_file import read_segment, segment_files
from cluster.replay.store.segments import Segments
from protocol.errors import UserError
from protocol.rows import SCHEMA, to_batch
from tests.unit.cluster.replay.rules.test_facts import group


def batch(*games: int) -> pa.RecordBatch:
    return to_batch([group(g, "attacker", 0, (9.0, 2.0), version=g) for g in games])


def games_of(table: pa.Table) -> list[int]:
    return list(table.column("game_id").to_pylist())


def opened(folder: Path, **limits: int) -> Segments:
    segments = Segments(folder, "attacker", **limits)
    segments.recover()
    return segments


def test_rows_are_read_back_in_the_order_asked_for(tmp_path: Path) -> None:
    s = opened(tmp_path)
    places = [*s.append(batch(1, 2, 3)), *s.append(batch(4))]
    table = s.read([places[3], places[0], places[2]])
    assert games_of(table) == [4, 1, 3]
    assert table.schema.equals(SCHEMA) and table.column("items")[0].as_py()[1]["reward"] == 2.0
    places += s.append(batch(5))
    assert games_of(s.read(places)) == [1, 2, 3, 4, 5]
    assert s.read([]).num_rows == 0


def test_arrow_and_duckdb_read_a_live_segment(tmp_path: Path) -> None:
    s = opened(tmp_path)
    for at in range(3):
        s.append(batch(10 * at, 10 * at + 1))
        with pa.memory_map(str(s.path(0))) as source:
            assert games_of(pa.ipc.open_stream(source).read_all())[-1] == 10 * at + 1
    with pa.memory_map(str(s.path(0))) as source:
        reader = pa.ipc.open_stream(source)  # noqa: F841 - duckdb finds it by its name
        found = duckdb.sql("select count(*), max(version), sum(len(items)) from reader").fetchall()
    assert found == [(6, 21, 12)]


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_batch_that_is_being_written_is_not_there_yet_and_its_rows_are_counted_if_it_never_is(
    writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = opened(tmp_path)
    s.append(batch(1))
    whole = s.path(0).stat().st_size
    write, left = segments._write_all, iter([True] * writes)

    def dying(fd: int, data: memoryview | bytes, offset: int) -> None:
        if not next(left, False):
            raise KeyboardInterrupt
        write(fd, data, offset)

    monkeypatch.setattr(segments, "_write_all", dying)
    with pytest.raises(KeyboardInterrupt):
        s.append(batch(2, 3, 4))
    assert s.path(0).stat().st_size == whole + len(bytes(batch(2, 3, 4).serialize()))  # nobody maps a part of it
    with pa.memory_map(str(s.path(0))) as source:
        assert games_of(pa.ipc.open_stream(source).read_all()) == [1]
    assert [found.batch.num_rows for found in read_segment(s.path(0), "attacker")] == [1]
    monkeypatch.undo()
    _, (torn,) = Segments(tmp_path, "attacker").recover()
    assert (torn.lost_rows, torn.at_least) == ((3, False) if writes else (1, True))
    assert s.path(0).stat().st_size == whole


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    s = opened(tmp_path, max_rows=2)
    for g in range(5):
        s.append(batch(g))
    with s.path(2).open("ab") as file:
        file.write(bytes(100))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    found = [b for path in segment_files(tmp_path, "attacker") for b in read_segment(path, "attacker")]
    assert games_of(pa.Table.from_batches([b.batch for b in found])) == [0, 1, 2, 3, 4]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rows_of_one_batch_are_read_together_in_any_order(tmp_path: Path) -> None:
    s = opened(tmp_path)
    places = [*s.append(batch(0, 1, 2, 3)), *s.append(batch(4, 5, 6))]
    for order in ([1, 2, 4, 5], [3, 1, 6, 4], [4, 0, 5, 1], [2, 2]):
        assert games_of(s.read([places[k] for k in order])) == order


def test_segments_rotate_and_are_read_together(tmp_path: Path) -> None:
    s = opened(tmp_path, max_rows=2)
    places = [place for g in range(5) for place in s.append(batch(g))]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"attacker-{n:06d}.arrow" for n in range(3)]
    assert games_of(s.read(places)) == [0, 1, 2, 3, 4]
    s.close()
    again = Segments(tmp_path, "attacker", max_rows=2)
    stored, torn = again.recover()
    assert torn == [] and [p for found in stored for p in found.places] == places
    assert [p.segment for g in (5, 6) for p in again.append(batch(g))] == [2, 3]


@pytest.mark.parametrize("keep", [1, 7, 8, 9, 200, -1])
def test_a_torn_tail_is_cut_and_measured(tmp_path: Path, keep: int) -> None:
    s = opened(tmp_path)
    s.append(batch(1, 2))
    whole = s.path(0).stat().st_size
    s.append(batch(3))
    s.close()
    data = s.path(0).read_bytes()
    torn_file = data[: whole + keep] if keep > 0 else data[:keep]
    s.path(0).write_bytes(torn_file)
    again = Segments(tmp_path, "attacker")
    stored, torn = again.recover()
    assert [g for found in stored for g in games_of(pa.Table.from_batches([found.batch]))] == [1, 2]
    assert [(t.file, t.lost_bytes, t.lost_rows, t.at_least) for t in torn] == [
        ("attacker-000000.arrow", len(torn_file) - whole, 1, True)
    ]
    assert s.path(0).stat().st_size == whole
    assert games_of(again.read(again.append(batch(4)))) == [4]
    assert Segments(tmp_path, "attacker").recover()[1] == []


def test_a_tail_of_zeros_is_cut(tmp_path: Path) -> None:
    s = opened(tmp_path)
    s.append(batch(1))
    whole = s.path(0).stat().st_size
    with s.path(0).open("ab") as file:
        file.write(bytes(4096))
    stored, torn = Segments(tmp_path, "attacker").recover()
    assert len(stored) == 1 and torn[0].lost_bytes == 4096 and s.path(0).stat().st_size == whole


def test_a_foreign_schema_is_refused_in_words(tmp_path: Path) -> None:
    other = SCHEMA.with_metadata({b"advgame.replay.schema": b"99"})
    (tmp_path / "attacker-000000.arrow").write_bytes(other.serialize().to_pybytes())
    with pytest.raises(UserError, match=r"attacker-000000.arrow: replay schema 99"):
        Segments(tmp_path, "attacker").recover()


def test_the_journal_is_read_back_and_a_torn_line_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    j = Journal(path)
    j.append({"e": "ack", "p": "attacker", "step": 1}, {"e": "ack", "p": "attacker", "step": 2})
    j.close()
    with path.open("ab") as file:
        file.write(b'{"e":"ack","p":"def')
    assert [e["step"] for e in read_events(path)] == [1, 2] and path.stat().st_size > 19
    again = Journal(path)
    events, lost = again.recover()
    assert [e["step"] for e in events] == [1, 2] and lost == 19
    again.append({"e": "ack", "p": "attacker", "step": 3})
    assert [e["step"] for e in again.recover()[0]] == [1, 2, 3]
    again.close()


def test_a_damaged_line_inside_the_journal_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"e":"ack","p":"attacker","step":1}\n\0\0\n{"e":"ack","p":"attacker","step":2}\n')
    j = Journal(path)
    with pytest.raises(UserError, match="line 2 is damaged"):
        j.recover()
    j.close()


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(UserError, match=r"still in use by another run after 0.2 s"):
        Journal(tmp_path / "journal.jsonl", lock_wait_s=0.2)
    first.close()
    Journal(tmp_path / "journal.jsonl", lock_wait_s=0.2).close()
