"""Demonstrations: what a file may hold, what generation would have to sample, and which examples a step sees."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from learners import fit as group
from learners.batch.demonstrations import Example, SftMix, load_demonstrations, read_examples
from learners.spec import LearnerSpec
from protocol.errors import UserError
from protocol.format_examples import make_examples
from protocol.recipe import LearnerConfig, SftConfig
from protocol.types import Seed
from tests.integration.tiny_qwen import EOS_ID, save_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    save_tokenizer(folder)
    return str(folder)


def write(path: Path, *lines: Any) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def config(path: str, max_tokens: int = 100, batch: int = 2) -> LearnerConfig:
    return LearnerConfig(sft=SftConfig(path=path, batch=batch), max_tokens=max_tokens)


def load_mix(model: str, config: LearnerConfig, where: str = "learners.attacker") -> SftMix | None:
    """The demonstrations that are mixed into the loss."""
    player: Any = where.removeprefix("learners.")
    return load_demonstrations(LearnerSpec(player, model, config, 1, 0, "run", "float32")).mix


GOOD = {"prompt": "w1- w2-", "response": "w3-"}


def test_examples_know_their_lines_and_blank_ones_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", GOOD, "", {"response": "ü", "prompt": "q"}, "")
    assert read_examples(path, "k") == [Example("w1- w2-", "w3-", 1), Example("q", "ü", 3)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"prompt": "a", "response": "b", "weight": 2}, r"x\.jsonl:2: fields prompt, response, weight; a line is "),
        ({"prompt": "a"}, r":2: fields prompt; "),
        ({}, r":2: fields \(none\); "),
        ([1], r":2: no JSON object; write one object a line"),
        ('{"prompt": "a"', r":2: no JSON; write one object a line"),
        ("[" * 10_000, r":2: no JSON; "),
        ('{"prompt": "a \\ud800", "response": "b"}', r":2: prompt is no Unicode \(a lone surrogate\); remove it"),
        ('{"prompt": "a", "response": "\\ud800"}', r":2: response is no Unicode"),
        ('{"prompt": "a", "prompt": "b", "response": "c"}', r':2: field "prompt" stands in it twice'),
        ({"prompt": "a", "response": "\u200b"}, r":2: response is no text or empty; "),
        ({"prompt\n": "a"}, r":2: fields prompt\\n; "),
        ({"prompt": "a", "response": " "}, r":2: response is no text or empty; "),
        ({"prompt": 3, "response": "b"}, r":2: prompt is no text or empty; "),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(UserError, match=r"^learners\.defender\.sft\.path: .*" + said) as refused:
        read_examples(write(tmp_path / "x.jsonl", GOOD, line), "learners.defender.sft.path")
    assert "\n" not in str(refused.value)


def test_a_byte_order_mark_is_no_part_of_the_first_example(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert read_examples(str(path), "k") == [Example("w1- w2-", "w3-", 1)]


def test_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x.jsonl", GOOD)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read_examples("~/x.jsonl", "k")) == 1


def test_a_file_that_gives_nothing_is_refused(tmp_path: Path) -> None:
    for path, said in [
        (write(tmp_path / "empty", "", " "), "has no examples; add some, or set k to null"),
        (str(tmp_path / "absent"), "cannot be read"),
    ]:
        with pytest.raises(UserError, match=said):
            read_examples(path, "k")
    (tmp_path / "latin").write_bytes(b'{"prompt": "\xfc", "response": "x"}')
    with pytest.raises(UserError, match="give a UTF-8 JSONL file"):
        read_examples(str(tmp_path / "latin"), "k")


def test_a_prompt_and_an_answer_are_what_generation_sees_and_samples(model: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    path = write(tmp_path / "x.jsonl", GOOD)
    mix = load_mix(model, config(path, batch=1), "learners.defender")
    assert mix is not None
    (sequences,) = mix.batch(0, 0, 1).micro
    tokens = sequences.tokens_BT[0]
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "w1- w2-"}], add_generation_prompt=True, return_dict=False
    )
    assert tokens[: len(asked)].tolist() == asked
    answer = sequences.targets_BK[0][sequences.mask_BK[0]].tolist()
    assert answer == tokens[len(asked) :].tolist()
    assert answer[-1] == EOS_ID and answer.count(EOS_ID) == 1
    assert tokenizer.decode(answer[:-1]).strip() == "w3-"


def test_what_a_template_adds_after_the_end_of_turn_is_not_learned(model: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>{% endfor %}", "<|im_end|>w9-{% endfor %}")
    tokenizer.save_pretrained(tmp_path / "trailing")
    mix = load_mix(str(tmp_path / "trailing"), config(write(tmp_path / "x", GOOD)))
    assert mix is not None
    sequences = mix.batch(0, 0, 1).micro[0]
    assert sequences.targets_BK[0][sequences.mask_BK[0]][-1] == EOS_ID


@pytest.mark.parametrize("role", ["<|im_start|>bot", "<|im_start|>assistant"])
def test_a_template_that_does_not_write_answers_so_is_refused(model: str, tmp_path: Path, role: str) -> None:
    """The first opens an answer otherwise than it says it does, the second does not end it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{{{{ '{role}' if m['role'] == 'assistant' else '' }}}} {{{{ m['content'] }}}}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="chat template does not write an answer as"):
        load_mix(str(tmp_path / "model"), config(write(tmp_path / "x", GOOD)))


def test_an_example_that_fits_no_forward_is_refused_with_the_numbers(model: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", GOOD, {"prompt": "w1- " * 30, "response": "w2- " * 20})
    with pytest.raises(UserError, match=r"x\.jsonl:2: \d\d tokens exceed learners\.attacker\.max_tokens 40; shorten"):
        load_mix(model, config(path, max_tokens=40))


def test_a_warm_start_and_the_mix_go_through_the_same_file_each_in_its_order(model: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *({"prompt": f"w{k}-", "response": f"w{k}-"} for k in range(9)))
    sft = SftConfig(path=path, batch=3, warm_steps=4)
    shown = load_demonstrations(LearnerSpec("defender", model, LearnerConfig(sft=sft), 1, 0, "run", "float32"))
    assert shown.mix is not None and shown.warm is not None
    assert [shown.mix.draw(k) for k in range(3)] != [shown.warm.draw(k) for k in range(3)]
    unmixed = LearnerConfig(sft=sft.model_copy(update={"weight": 0.0}))
    alone = load_demonstrations(LearnerSpec("defender", model, unmixed, 1, 0, "run", "float32"))
    assert alone.mix is None and alone.warm is not None, "a weight of 0 would only cost its forwards"


def test_a_warm_start_without_a_file_is_made_on_the_examples_of_the_spec(model: str) -> None:
    config = LearnerConfig(sft=SftConfig(batch=2, warm_steps=2))
    seeds = [Seed("a", "w1- w2-", "harmful"), Seed("b", "w3- <|im_end|>", "benign")]
    examples = make_examples(seeds, 4, "brief", "prompt", 0)
    spec = LearnerSpec("attacker", model, config, 1, 0, "run", "float32", warm=examples)
    with capture_logs() as logs:
        shown = load_demonstrations(spec)
    assert shown.mix is None and shown.warm is not None
    assert [log["n"] for log in logs] == [2], "the seed that spells the end of a turn is left out, and counted"
    (sequences,) = shown.warm.batch(0, 0, 1).micro
    assert sequences.targets_BK[0][sequences.mask_BK[0]][-1] == EOS_ID
    only = LearnerSpec("attacker", model, config, 1, 0, "run", "float32", warm=examples[1::2])
    with pytest.raises(UserError, match=r"^learners\.attacker\.sft\.warm_steps: every seed spells a special token"):
        load_demonstrations(only)
    small = LearnerSpec(
        "attacker", model, config.model_copy(update={"max_tokens": 9}), 1, 0, "r", "float32", warm=examples
    )
    with pytest.raises(UserError, match=r"warm_steps: an example: \d+ tokens exceed learners\.attacker\.max_tokens 9"):
        load_demonstrations(small)


def test_without_a_path_there_is_no_mix() -> None:
    assert load_mix("nowhere", LearnerConfig()) is None


def numbered(n: int, batch: int, seed: int = 0, max_tokens: int = 100) -> SftMix:
    """Example k: a prompt of one token and an answer of k % 4 + 1 tokens of value 10 + k."""
    rows = [(np.array([1]), np.full(k % 4 + 1, 10 + k)) for k in range(n)]
    return SftMix(rows, config("unread", max_tokens, batch), seed)


def test_a_step_s_examples_follow_from_seed_and_step_and_all_come_equally_often() -> None:
    mix, again, other = numbered(10, 4), numbered(10, 4), numbered(10, 4, seed=1)
    drawn = [mix.draw(step) for step in range(10)]
    assert [again.draw(step) for step in reversed(range(10))] == drawn[::-1]
    assert [other.draw(step) for step in range(10)] != drawn
    assert set(Counter(k for one in drawn for k in one).values()) == {4}, "40 places over 10 examples"
    assert sorted([*drawn[0], *drawn[1], *drawn[2][:2]]) == list(range(10)), "none twice before all once"
    assert len(numbered(3, 8).draw(5)) == 8, "a file smaller than a batch is gone through more than once"


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_ranks_share_a_step_s_examples_and_run_as_many_forwards(ranks: int) -> None:
    mix = numbered(10, 4, max_tokens=6)
    shares = [mix.batch(3, rank, ranks) for rank in range(ranks)]
    assert len({len(share.micro) for share in shares}) == 1
    seen = Counter(
        int(target)
        for share in shares
        for sequences in share.micro
        for target in sequences.targets_BK[sequences.mask_BK]
    )
    assert seen == {10 + k: k % 4 + 1 for k in mix.draw(3)}
    assert {share.answer_tokens for share in shares} == {sum(seen.values())}


def test_a_bad_file_is_refused_before_any_rank_starts(model: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(group, "check_model_folder", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "demos.jsonl", {"prompt": "a"})
    spec = LearnerSpec("defender", model, config("demos.jsonl"), 1, 0, str(tmp_path), "float32")
    with pytest.raises(UserError, match=r"^learners\.defender\.sft\.path: /.*demos\.jsonl:1: fields prompt"):
        group.fit_group(spec, None, None)  # type: ignore[arg-type]
