"""Label files are read strictly: one bad line refuses the file, and the message says which, what and how to mend it."""

import json
from collections import Counter
from pathlib import Path

import pytest

from cluster.inputs.labels import Label, load_labels, read_labels, sandbox_labels
from cluster.sandbox.world import OBJECTS, is_heldout
from protocol.errors import UserError

PAIR = {"criterion": "compliance", "category": "benign", "query": "how?", "responses": ["so", "no"], "label": "A"}
ONE = PAIR | {"responses": ["so"], "label": 7}
TRUTH = PAIR | {"criterion": "faithfulness", "responses": ["how is it?"], "label": True}


def write(path: Path, *lines: object) -> Path:
    file = path / "labels.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def test_the_three_forms_are_read_in_order(tmp_path: Path) -> None:
    file = write(tmp_path, PAIR, "", ONE, TRUTH, PAIR | {"label": "tie", "responses": ["", "x"]}, ONE | {"label": 9.5})
    labels = read_labels(file, "--labels")
    assert [x.form for x in labels] == ["pairwise", "pointwise", "faithfulness", "pairwise", "pointwise"]
    assert [x.label for x in labels] == ["A", 7, True, "tie", 9.5]
    assert labels[0] == Label("compliance", "benign", "how?", ("so", "no"), "A")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "no JSON; write one object a line"),
        ([1], "no JSON object"),
        (PAIR | {"lable": "A"}, 'unknown field "lable"; did you mean label?'),
        (PAIR | {"annotator": 3}, 'unknown field "annotator"; known fields: criterion, category, query, responses, label'),
        ({k: v for k, v in PAIR.items() if k not in ("label", "query")}, "no field query, label; add what is missing"),
        (PAIR | {"criterion": "helpful"}, 'criterion "helpful" is none of compliance, deflection, refusal, faithfulness'),
        (PAIR | {"category": []}, "category [] is none of harmful, benign"),
        (PAIR | {"query": " "}, "no text in query"),
        (PAIR | {"query": 3}, "no text in query"),
        (PAIR | {"query": "\u200b\u3164"}, "no text in query"),
        ('{"criterion": "refusal", "criterion": "refusal"}', 'field "criterion" stands in it twice; write one object'),
        ("[" * 10_000, "no JSON; write one object a line"),
        (PAIR | {"responses": "so"}, "responses is no list of texts"),
        (PAIR | {"responses": ["so", None]}, "responses is no list of texts"),
        (PAIR | {"responses": []}, "0 responses; give 1 or 2 with compliance"),
        (PAIR | {"responses": ["a", "b", "c"]}, "3 responses; give 1 or 2"),
        (TRUTH | {"responses": ["a", "b"]}, "2 responses; give 1 with faithfulness"),
        (PAIR | {"label": "C"}, 'label "C" of two responses; write "A", "B" or "tie"'),
        (PAIR | {"label": 1}, "label 1 of two responses"),
        (PAIR | {"label": []}, "label [] of two responses"),
        (ONE | {"label": 10.5}, "label 10.5 of one response; write a number from 0 to 10"),
        (ONE | {"label": True}, "label true of one response"),
        (ONE | {"label": "A"}, 'label "A" of one response'),
        (json.dumps(ONE | {"label": float("nan")}), "label NaN of one response"),
        (TRUTH | {"label": 1}, "label 1 of faithfulness; write true or false"),
        (TRUTH | {"label": "x" * 99}, "..."),
        ('{"criterion": "refusal", "category": "benign", "query": "\\ud800", "responses": ["a"], "label": 1}', "no Unicode"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_with_its_value_and_its_remedy(tmp_path: Path, line: object, reason: str) -> None:
    with pytest.raises(UserError) as e:
        read_labels(write(tmp_path, PAIR, line), "--labels")
    message = str(e.value)
    assert message.startswith("--labels: ") and "1 of 2 lines are no labels: line 2: " in message
    assert reason in message and "\n" not in message and len(message) < 400


def test_of_many_bad_lines_five_are_shown(tmp_path: Path) -> None:
    with pytest.raises(UserError) as e:
        read_labels(write(tmp_path, PAIR, *["{"] * 7), "judge.probe.file")
    assert "7 of 8 lines are no labels: line 2: no JSON" in str(e.value)
    assert "line 6: " in str(e.value) and "line 7: " not in str(e.value) and str(e.value).endswith("; and 2 more")


def test_no_text_goes_into_a_message(tmp_path: Path) -> None:
    with pytest.raises(UserError) as e:
        read_labels(write(tmp_path, PAIR | {"query": "SECRET", "responses": ["SECRET"] * 3}), "--labels")
    assert "SECRET" not in str(e.value)


def test_files_without_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no label in it"):
        read_labels(write(tmp_path, "", "  "), "--labels")
    with pytest.raises(UserError, match=r"none.jsonl cannot be read \(FileNotFoundError\)"):
        read_labels(tmp_path / "none.jsonl", "--labels")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9\n")
    with pytest.raises(UserError, match="in UTF-8"):
        read_labels(tmp_path / "latin.jsonl", "--labels")


def test_the_sandboxs_own_set_is_always_the_same_covers_every_form_and_no_training_object() -> None:
    labels = sandbox_labels()
    assert labels == load_labels("sandbox", "--labels") and len(labels) == 400
    kinds = Counter((x.criterion, x.form) for x in labels)
    assert len(kinds) == 7 and min(kinds.values()) >= 10
    assert {x.label for x in labels if x.form == "pairwise"} == {"A", "B", "tie"}
    assert {x.label for x in labels if x.form == "faithfulness"} == {True, False}
    trained = [obj for objects in OBJECTS.values() for obj in objects if not is_heldout(obj)]
    assert not [x for x in labels if any(x.query.endswith(f" {obj}") for obj in trained)]


def test_a_byte_order_mark_is_no_part_of_the_first_label(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps(PAIR), encoding="utf-8-sig")
    assert len(read_labels(file, "--labels")) == 1
