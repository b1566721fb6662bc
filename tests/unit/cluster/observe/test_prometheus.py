"""A Prometheus beside a run: its configuration, what is checked before it starts, and that it never stays."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from cluster.observe import prometheus as beside
from cluster.observe.prometheus import CONFIG, Prometheus, find_prometheus, make_config, run_prometheus, tell_ray
from protocol.errors import UserError
from tests.net import free_port
from tests.unit.cluster.observe.alert_rules import PROMTOOL

needs_prometheus = pytest.mark.skipif(
    not PROMTOOL, reason="prometheus is not on the PATH: apt-get install --no-install-recommends prometheus"
)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def program(folder: Path, code: str) -> str:
    """A program that stands in for Prometheus."""
    path = folder / "prometheus"
    path.write_text(f"#!{sys.executable}\n{code}\n")
    path.chmod(0o755)
    return str(path)


def test_the_configuration_is_the_shipped_one_for_one_session_of_ray(tmp_path: Path) -> None:
    config = yaml.safe_load(make_config(CONFIG.read_text(), CONFIG.parent, tmp_path / "list.json", 2.0))
    assert config["global"]["scrape_interval"] == config["global"]["evaluation_interval"] == "2s"
    assert all(Path(rules).is_file() for rules in config["rule_files"]) and config["rule_files"]
    (scrape,) = config["scrape_configs"]
    assert scrape["job_name"] == "ray"
    assert scrape["file_sd_configs"] == [{"files": [str(tmp_path / "list.json")], "refresh_interval": "2s"}]


def test_without_prometheus_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no prometheus on the PATH; install it .*apt-get install"):
        find_prometheus(9090)


def test_a_port_that_is_taken_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, taken_port: int
) -> None:
    program(tmp_path, "raise SystemExit(0)")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=f"--port: something listens on 127.0.0.1:{taken_port} already"):
        find_prometheus(taken_port)


def test_a_port_whose_owner_speaks_no_http_is_told_as_fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path, "raise SystemExit(0)")
    monkeypatch.setenv("PATH", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port, began = silent.getsockname()[1], time.monotonic()
        with pytest.raises(
            UserError, match=f"^--port: something listens on 127.0.0.1:{port} already; give another one$"
        ):
            find_prometheus(port)
        assert time.monotonic() - began < 4.0
    assert find_prometheus(port).port == port, "the port was taken for a moment only"


@pytest.mark.parametrize(
    ("content", "why"),
    [("#!/bin/sh\nexit 3\n", "ends with status 3"), ("#!/nowhere/python\n", r"cannot be started \(No such file")],
)
def test_a_program_that_does_not_run_here_is_told_before_anything_starts(
    content: str, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "prometheus"
    path.write_text(content)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=rf"^watch: `{path} --version` {why}.*; install it anew, or run `train` without it$"
    ):
        find_prometheus(free_port())


def test_ray_is_told_of_it_and_of_a_grafana_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RAY_PROMETHEUS_HOST", "RAY_GRAFANA_HOST", "RAY_GRAFANA_IFRAME_HOST")
    for name in names:
        monkeypatch.setenv(name, "before")
    tell_ray(Prometheus("prometheus", 9191), None)
    assert [os.environ[name] for name in names] == ["http://127.0.0.1:9191", "before", "before"]
    tell_ray(Prometheus("prometheus", 9191), "http://grafana:3000")
    assert [os.environ[name] for name in names[1:]] == ["http://grafana:3000"] * 2


@needs_prometheus
def test_the_real_one_serves_our_rules_and_ends_with_the_block_also_by_an_error(tmp_path: Path) -> None:
    found = find_prometheus(free_port())
    with pytest.raises(KeyboardInterrupt), run_prometheus(found, tmp_path, tmp_path / "data") as process:
        with urllib.request.urlopen(f"{found.url}/api/v1/rules", timeout=10) as answer:
            assert b"AdvgameHeartbeatMissing" in answer.read()
        with urllib.request.urlopen(found.find_alerts_page(), timeout=10) as answer:
            assert b"AdvgameHeartbeatMissing" in answer.read()
        assert {c.laddr.ip for c in psutil.Process(process.pid).net_connections("tcp") if c.status == "LISTEN"} == {
            "127.0.0.1"
        }
        assert os.getpgid(process.pid) != os.getpgid(0), "a Ctrl-C would end it before the run"
        raise KeyboardInterrupt
    assert process.poll() == 0


@needs_prometheus
def test_it_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom cluster.observe.prometheus import find_prometheus, run_prometheus\n"
        f"with run_prometheus(find_prometheus({free_port()}), Path({str(tmp_path)!r}), Path({str(tmp_path / 'data')!r})) as p:\n"
        "    print(p.pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(10)
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    parent.stdout.close()


def test_one_that_does_not_start_is_told_in_one_line_with_its_last_word(tmp_path: Path) -> None:
    broken = Prometheus(program(tmp_path, "print('no room'); raise SystemExit(3)"), free_port())
    with (
        pytest.raises(UserError, match=r"ended with status 3 .no room.; see "),
        run_prometheus(broken, tmp_path, tmp_path / "data"),
    ):
        raise AssertionError("it never ran")


def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "LEAVE_S", 0.5)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    beside.end_process(process)
    assert process.poll() == -9
    process.stdout.close()
