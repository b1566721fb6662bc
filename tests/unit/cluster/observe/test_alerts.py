"""The alert rules: what is committed is what the catalogue gives; each fires, does not fire, and resolves, by the real promtool."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from cluster.cli.app import app
from cluster.observe.alerts import ALERTS, RULES, render_rules
from cluster.observe.alerts.alert import RUNBOOK, Alert
from cluster.observe.alerts.promql import buckets, mean, select
from protocol import metrics as m
from protocol.recipe import Recipe
from tests.paths import ROOT
from tests.selectors import selectors_of
from tests.unit.cluster.observe.alert_rules import MISSING, PROMTOOL, check_situations, run_promtool
from tests.unit.cluster.observe.alert_situations import SITUATIONS

RUNBOOK_TEXT = (ROOT / RUNBOOK).read_text()
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason=MISSING)


def named(alert: Alert) -> str:
    return alert.name


def test_the_committed_rules_are_what_the_catalogue_gives() -> None:
    assert (ROOT / RULES).read_text() == render_rules(), "run python -m cluster.observe.alerts"


def test_names_are_unique_and_every_alert_has_its_situations() -> None:
    names = [alert.name for alert in ALERTS]
    assert len(names) == len(set(names)) >= 12
    assert sorted(SITUATIONS) == sorted(names)
    for name, situations in SITUATIONS.items():
        assert {s.kind for s in situations} == {"fires", "quiet", "resolves"}, name
        for situation in situations:
            moments = list(situation.at.values())
            last = {"fires": lambda x: x[-1], "quiet": lambda x: not any(x), "resolves": lambda x: x[0] and not x[-1]}
            assert last[situation.kind](moments), f"{name}: {situation.kind} is not what {situation.at} says"


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_every_series_of_its_expression_is_there_when_it_fires(alert: Alert) -> None:
    seeded = "\n".join(series for s in SITUATIONS[alert.name] if s.kind != "quiet" for series in s.series)
    asked = {re.split("[{]", selector)[0] for selector in selectors_of(alert.expr)}
    # Counted where another player's turn is: what silences an alert is in a quiet situation.
    assert {name for name in asked if f"{name}{{" not in seeded} <= {"ray_advgame_waiting_seconds_total"}


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_its_texts_say_which_run_and_how_much(alert: Alert) -> None:
    assert "$labels.run" in alert.summary and "$labels.run" in alert.description
    assert "$value" in alert.description
    assert len(re.findall(r"ray_advgame_\w+", alert.expr)) >= 1


def write_rules(*args: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cluster.observe.alerts", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_runbooks_address_is_the_operators_and_without_one_it_is_the_path_in_the_checkout(tmp_path: Path) -> None:
    def links(text: str) -> list[str]:
        groups = yaml.safe_load(text)["groups"]
        return [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]

    for link in links(render_rules()):
        path, _, section = link.partition("#")
        assert re.search(rf"^## {section}$", (ROOT / path).read_text(), re.M | re.I), link
    wiki = "https://wiki.example/advgame/runbook"
    done = write_rules("--runbook", wiki, "--to", str(tmp_path / "rules.yml"))
    assert done.returncode == 0, done.stderr
    assert links((tmp_path / "rules.yml").read_text()) == [f"{wiki}#{alert.name.lower()}" for alert in ALERTS]


@pytest.mark.parametrize("args", [("--runbook", "https://wiki.example"), ("--to", "/nowhere/at/all/rules.yml")])
def test_rules_that_can_go_nowhere_are_told_in_a_line(args: tuple[str, ...]) -> None:
    done = write_rules(*args)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "; " in done.stderr.splitlines()[-1]
    assert (ROOT / RULES).read_text() == render_rules()


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_the_runbook_has_its_section(alert: Alert) -> None:
    sections = re.split(r"^## ", RUNBOOK_TEXT, flags=re.M)
    (section,) = (s for s in sections if s.splitlines()[0] == alert.name)
    assert [line for line in section.splitlines() if line.startswith("**")] and f"({alert.severity})" in section
    for part in ("**Means**", "**Look at**", "**Do**"):
        assert part in section, f"{alert.name}: {part} is missing"


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    told = set(re.findall(r"^## (Advgame\w+)$", RUNBOOK_TEXT, re.M))
    assert told == {alert.name for alert in ALERTS}


@pytest.mark.parametrize(
    "make",
    [
        lambda: select(m.STEP, pool="judge"),
        lambda: select(m.PHASE, phase="asleep"),
        lambda: buckets(m.STEP),
        lambda: mean(m.STEP, "run", "5m"),
    ],
)
def test_what_the_catalogue_does_not_know_is_an_error(make: object) -> None:
    with pytest.raises(ValueError, match="advgame_"):
        make()  # type: ignore[operator]


@needs_promtool
def test_promtool_reads_the_rules() -> None:
    done = run_promtool("check", "rules", "--lint=all", "--lint-fatal", str(ROOT / RULES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


@needs_promtool
def test_promtool_reads_the_configuration() -> None:
    done = run_promtool("check", "config", str(ROOT / "deploy" / "prometheus" / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


@needs_promtool
@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_it_fires_does_not_fire_and_resolves(alert: Alert, tmp_path: Path) -> None:
    wrong = check_situations(alert.name, SITUATIONS[alert.name], tmp_path)
    assert not wrong, wrong


@needs_promtool
def test_a_wrong_expectation_is_told(tmp_path: Path) -> None:
    situation = SITUATIONS["AdvgameJudgeFailing"][0]
    wrong = dict.fromkeys(situation.at)
    assert "FAILED" in check_situations(
        "AdvgameJudgeFailing", [type(situation)("fires", situation.series, wrong)], tmp_path
    )


def test_the_runbook_names_keys_of_the_recipe_and_commands_that_there_are() -> None:
    keys = {
        key
        for key in re.findall(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`", RUNBOOK_TEXT)
        if key.split(".")[0] in Recipe.model_fields
    }
    assert len(keys) > 10
    assert not {key for key in keys if not is_key(key)}
    commands = set(re.findall(r"python -m cluster (\w+)", RUNBOOK_TEXT))
    assert commands <= {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }


def is_key(key: str) -> bool:
    section: Any = Recipe
    for name in key.replace("PLAYER", "attacker").split("."):
        if name not in getattr(section, "model_fields", {}):
            return False
        kinds = section.model_fields[name].annotation
        section = next((kind for kind in (kinds, *get_args(kinds)) if hasattr(kind, "model_fields")), None)
    return True
