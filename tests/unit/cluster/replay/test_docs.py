"""The DuckDB snippet of docs/replay.md, run as it stands there, on a replay folder that is being appended to."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.replay.store.journal import Journal
from cluster.replay.store.segments import Segments
from protocol.rows import to_batch
from tests.paths import DOCS
from tests.unit.cluster.replay.rules.test_facts import group

PAGE = DOCS / "replay.md"


def test_the_query_of_the_docs_reads_a_live_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert 'run = "runs/NAME"' in snippet
    code = compile(snippet.replace("runs/NAME", str(tmp_path)), str(PAGE), "exec")
    folder = tmp_path / "replay"
    folder.mkdir()
    segments, journal = Segments(folder, "defender", max_rows=500), Journal(folder / "journal.jsonl")
    stored, done, failed = 0, threading.Event(), list[BaseException]()

    def append() -> None:
        nonlocal stored
        try:
            while not done.is_set():
                games = range(stored, stored + 3)
                segments.append(to_batch([group(g, "defender", 0, (8.0, 1.0), version=g % 2) for g in games]))
                journal.append({"e": "lease", "p": "defender", "step": stored // 3, "version": 0, "games": [*games]})
                stored += 3
                done.wait(0.001)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            failed.append(error)

    append_once = threading.Thread(target=append)
    append_once.start()
    seen = []
    try:
        while len(seen) < 6 or stored < 600:
            assert not failed and append_once.is_alive()
            if stored:
                least = stored
                found: dict[str, Any] = {}
                exec(code, found)
                ids = found["defender"]["game_id"].to_pylist()
                assert ids == list(range(len(ids))) and len(ids) >= least
                seen.append(len(ids))
    finally:
        done.set()
        append_once.join()
        segments.close()
        with (folder / "journal.jsonl").open("ab") as file:
            file.write(b'{"e":"lease","p":"def')  # half a line, as a reader may meet it
        journal.close()
    assert len(set(seen)) > 4, "it grew while it was read"
    capsys.readouterr()
    exec(code, {})
    shown = capsys.readouterr().out
    rows = [re.findall(r"[\w.]+", line) for line in shown.splitlines() if "│" in line]
    even, odd = (stored + 1) // 2, stored // 2
    assert ["0", "harmful", "ok", str(2 * even), "4.5"] in rows and ["1", "harmful", "ok", str(2 * odd), "4.5"] in rows
    assert ["defender", str(stored // 3), str(stored)] in rows
