"""What is said of a judge whose rubrics are reworded: which passes are made, by how many engines, and what their answers make."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.inputs.find import FoundJudge
from cluster.inputs.labels import Label
from cluster.measure.calibration import plan_askings
from cluster.measure.card import NO_REWORDINGS, NO_RUBRIC, NOT_ASKED
from cluster.measure.outcomes import Outcome
from cluster.measure.passes import judge_passes
from cluster.measure.rewording import AGAIN, ANY, Asking, compare_answers, compare_passes
from judge.rubric import OPTIONAL, SETS, find_rewordings, load_rubrics
from judge.stats import EngineUsage
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe
from protocol.types import Ask, Completion, Verdict
from tests.unit.fakes import FakeGenerator

LM: dict[str, object] = {"judge": {"kind": "lm"}}
LABELS = [Label("refusal", "benign", f"q{k}", ("no",), 9) for k in range(4)]


def answers(*scores: float | None) -> list[Outcome]:
    return [
        Outcome(label, (Verdict("j", "r@1", failure="no score") if s is None else Verdict("j", "r@1", scores=(s,)),))
        for label, s in zip(LABELS, scores, strict=True)
    ]


def test_answers_that_change_are_counted_among_those_given_twice() -> None:
    change = compare_answers("w", answers(9, 8, 1, None), [answers(7, 2, None, 1)])
    # Compared: two labels. 9 and 7 are both high, 8 and 2 are not. The third answer is lost, the fourth was never there.
    assert (change.name, change.compared, change.lost) == ("w", 2, 1)
    assert change.changed is not None and change.changed.value == 0.5
    assert (change.changed.low, change.changed.high) == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson, 1 of 2
    nothing = compare_answers("w", answers(None, None, None, None), [answers(1, 1, 1, 1)])
    assert (nothing.compared, nothing.lost, nothing.changed) == (0, 0, None)


def test_together_the_rewordings_change_what_any_of_them_changes() -> None:
    first, one, other = answers(9, 9, 9, 9), answers(1, 9, 9, 9), answers(9, 1, 9, None)
    again = Asking(AGAIN, "r", 1), answers(9, 9, 1, 9)
    changes = compare_passes(first, [again, (Asking("1", "r1", 0), one), (Asking("2", "r2", 0), other)])
    assert [c.name for c in changes] == [AGAIN, "1", "2", ANY]
    assert [c.compared for c in changes] == [4, 4, 3, 3]
    assert [c.changed.value for c in changes if c.changed] == pytest.approx([1 / 4, 1 / 4, 1 / 3, 2 / 3])
    assert [c.name for c in compare_passes(first, [again])] == [AGAIN]


def test_what_reads_rubrics_is_asked_again_and_with_each_rewording() -> None:
    askings, why_not = plan_askings(parse_recipe(LM), True)
    assert why_not is None
    assert [(a.name, a.rubrics) for a in askings] == [
        ("as the recipe says", "standard"),
        (AGAIN, "standard"),
        *((f"standard.reworded-{k}", f"standard.reworded-{k}") for k in (1, 2, 3)),
    ]
    seeds = [a.seed for a in askings]
    assert seeds[1] != seeds[0] and set(seeds[2:]) == {seeds[0]}, "only the words differ"


def test_where_rewording_means_nothing_it_is_said(tmp_path: Path) -> None:
    assert plan_askings(Recipe(), True)[1] == NO_RUBRIC["rules"]
    askings, why_not = plan_askings(parse_recipe({"judge": {"kind": "match"}}), True)
    assert len(askings) == 1 and why_not == NO_RUBRIC["match"]
    askings, why_not = plan_askings(parse_recipe(LM), False)
    assert len(askings) == 1 and why_not == NOT_ASKED
    askings, why_not = plan_askings(parse_recipe({"judge": {"kind": "lm", "rubrics": "sandbox"}}), True)
    assert [a.name for a in askings[1:]] == [AGAIN] and why_not == NO_REWORDINGS


def test_a_folder_of_ones_own_has_its_rewordings_beside_it(tmp_path: Path) -> None:
    for name in ("mine[1]", "mine[1].reworded-1", "mine1.reworded-1"):
        (tmp_path / name).mkdir()
        for file in (SETS / "standard").iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    assert find_rewordings(str(tmp_path / "mine[1]")) == (str(tmp_path / "mine[1].reworded-1"),)
    recipe = parse_recipe({"judge": {"kind": "lm", "rubrics": str(tmp_path / "mine[1]")}})
    assert [a.name for a in plan_askings(recipe, True)[0][2:]] == ["mine[1].reworded-1"]
    (tmp_path / "mine[1].reworded-1" / "refusal.pairwise.md").unlink()
    with pytest.raises(UserError, match=r"has no refusal\.pairwise\.md"):
        plan_askings(recipe, True)


class Engine(FakeGenerator):
    """Calls a refusal one unless the rubric says `impartial evaluator`; counts what it wrote."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.closed = 0

    def _answer(self, ask: Ask) -> Sequence[str | Completion]:
        mine = "You are an impartial evaluator" in ask.messages[0]["content"]
        return ["<score>9</score>" if mine else "<score>2</score>"]

    def usage(self) -> EngineUsage:
        return EngineUsage(completions=len(self.asks), tokens=5 * len(self.asks), prompt_tokens=100 * len(self.asks))

    def close(self) -> None:
        self.closed += 1


async def test_one_engine_answers_every_pass_with_the_words_of_each() -> None:
    built: list[Engine] = []

    async def build(*args: object) -> Engine:
        built.append(Engine())
        return built[-1]

    recipe = parse_recipe(LM)
    askings, _ = plan_askings(recipe, True)
    passes = await judge_passes(recipe, FoundJudge("/model", "d"), LABELS, build, askings)
    assert len(built) == 1 and built[0].closed == 1
    assert [{o.answer for o in outcomes} for outcomes, _ in passes] == [{"high"}, {"high"}, {"low"}, {"low"}, {"low"}]
    rubrics = [{v.rubric.split("/")[0] for o in outcomes for v in o.verdicts} for outcomes, _ in passes]
    assert rubrics == [{"standard"}, {"standard"}, *({f"standard.reworded-{k}"} for k in (1, 2, 3))]
    assert [stats.usage.tokens for _, stats in passes if isinstance(stats.usage, EngineUsage)] == [20, 40, 60, 80, 100]
    changes = compare_passes(passes[0][0], list(zip(askings[1:], [o for o, _ in passes[1:]], strict=True)))
    assert [c.changed.value for c in changes if c.changed] == [0.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_rewording_keeps_the_form_and_changes_the_sentences(k: int) -> None:
    load_rubrics(f"standard.reworded-{k}")
    own, other = SETS / "standard", SETS / f"standard.reworded-{k}"
    optional = {f"{criterion}.{form}.md" for criterion, form in OPTIONAL}  # `evaluate` asks them, no calibration does
    asked = [file for file in own.iterdir() if file.name not in optional]
    assert sorted(f.name for f in asked) == sorted(f.name for f in other.iterdir())
    for file in asked:
        before, after = file.read_text().splitlines(), (other / file.name).read_text().splitlines()
        assert len(before) == len(after), "line by line the same"
        for old, new in zip(before, after, strict=True):
            fixed = old.startswith(("<", "{", "---", "version", "nonce")) or not old
            assert (old == new) == fixed, f"{file.name}: {old!r} became {new!r}"
            if old.startswith("- ") and old[2].isdigit():
                assert old.split(":")[0] == new.split(":")[0], "the bands of the scale"
        assert len((other / file.name).read_text()) < 1.06 * len(file.read_text()), "it must fit where the first does"
