"""A recipe that extends another one: what is merged, what is replaced, and what is refused."""

from pathlib import Path

import pytest

from cluster.inputs.recipe_file import dump_recipe, load_recipe, with_absolute_paths
from protocol.errors import UserError


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "top.yaml"


def test_sections_are_merged_and_values_and_lists_replaced(tmp_path: Path) -> None:
    top = write(
        tmp_path,
        top="extends: middle.yaml\nlearners: {defender: {betas: [0.8, 0.9]}}\nrun: {seed: 3}\n",
        middle="extends: base.yaml\nrun: {steps: 20}\nlearners: {defender: {lr: 0.1}}\n",
        base="run: {steps: 10, seed: 1}\ngame: {attacks: 4}\nlearners: {defender: {lr: 0.5, clip: 2.0, betas: [0.1, 0.2]}}\n",
    )
    r = load_recipe(top, ["run.steps=30"])
    assert (r.run.steps, r.run.seed, r.game.attacks) == (30, 3, 4)
    d = r.learners.defender
    assert (d.lr, d.clip, d.betas) == (0.1, 2.0, (0.8, 0.9))
    assert "extends" not in dump_recipe(r)


def test_a_shared_section_of_the_base_changes_in_one_place(tmp_path: Path) -> None:
    top = write(
        tmp_path,
        top="extends: base.yaml\nlearners: {defender: {lr: 0.5}}\n",
        base="learners:\n  attacker: &a {lr: 0.1, clip: 2.0}\n  defender: *a\n",
    )
    r = load_recipe(top)
    assert (r.learners.attacker.lr, r.learners.defender.lr, r.learners.defender.clip) == (0.1, 0.5, 2.0)


def test_the_path_is_beside_the_file_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, base="run: {seed: 5}\n")
    top = write(tmp_path / "below", top="extends: ../base.yaml\n")
    monkeypatch.chdir("/")
    assert load_recipe(top).run.seed == 5


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"top": "extends: none.yaml"}, "extends .*none.yaml, which cannot be read"),
        ({"top": "extends: top.yaml"}, r"closes a circle \(top.yaml -> top.yaml\)"),
        (
            {"top": "extends: b.yaml", "b": "extends: c.yaml", "c": "extends: b.yaml"},
            r"closes a circle \(top.yaml -> b.yaml -> c.yaml -> b.yaml\)",
        ),
        ({"top": "extends: [a.yaml]"}, r"extends: \['a.yaml'\] is no path"),
        ({"top": "extends:"}, "extends: None is no path"),
        ({"top": "extends: b.yaml", "b": "- 1"}, "b.yaml holds a list"),
        ({"top": "extends: b.yaml", "b": "a: ["}, "b.yaml line 1 is no YAML"),
        ({"top": "extends: b.yaml", "b": "run: {sed: 1}"}, "did you mean run.seed?"),
        ({"top": "run: {extends: b.yaml}", "b": ""}, "run.extends: unknown key"),
        ({"top": 'extends: "b\\0.yaml"'}, "is no path"),
    ],
)
def test_what_cannot_be_extended_is_one_line(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as e:
        load_recipe(write(tmp_path, **files))
    assert "\n" not in str(e.value)


def test_a_run_keeps_every_path_absolute_and_names_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    top = write(
        tmp_path,
        top="judge: {kind: lm, model: m/judge, rubrics: my/rubrics, probe: {file: probe.jsonl}}\n"
        "learners: {defender: {sft: {path: sft.jsonl}}}\n",
    )
    r = with_absolute_paths(load_recipe(top))
    assert r.judge.model == str(tmp_path / "m/judge") and r.judge.rubrics == str(tmp_path / "my/rubrics")
    assert r.judge.probe.file == str(tmp_path / "probe.jsonl")
    assert r.learners.defender.sft.path == str(tmp_path / "sft.jsonl") and r.learners.attacker.sft.path is None
    top.write_text("judge: {rubrics: sandbox, probe: {file: sandbox}}\n")
    r = with_absolute_paths(load_recipe(top))
    assert (r.judge.model, r.judge.rubrics, r.judge.probe.file) == ("sandbox", "sandbox", "sandbox")
    top.write_text("")
    r = with_absolute_paths(load_recipe(top))
    assert (r.judge.rubrics, r.judge.probe.file) == ("standard", None)
