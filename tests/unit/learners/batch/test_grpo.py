"""GRPO: which items it learns from and by how much, and its gradient against a computation by hand in numpy."""

from typing import Any, Literal

import numpy as np
import pytest
import torch

from learners.batch.build import make_batch
from learners.batch.grpo import compute_advantages
from learners.batch.micro_batches import ItemMicro, StepBatch, make_dummy
from learners.loss.logprobs import token_entropy, token_logp
from learners.loss.objective import AnswerScores, GroupObjective
from protocol.recipe import LearnerConfig, QuirksConfig
from protocol.rows import SCHEMA
from tests.unit.learners.batch.test_pairs import group, table

pytestmark = pytest.mark.numerics
ITEMS, POSITIONS, VOCABULARY = 4, 5, 7
LENGTHS = [3, 5, 1, 4]
CONFIG = LearnerConfig(loss="grpo", beta=0.1)
PAPER = QuirksConfig(
    judge_orders="paper", grpo_ratio="paper", grpo_penalised="paper", grpo_baseline="paper", lr_schedule="paper"
)


def numbers(seed: int) -> dict[str, np.ndarray]:
    """Random items: logits of policy and reference (B, T, V), targets, mask and sampler's log-probabilities (B, T)."""
    draw = np.random.default_rng(seed)
    shape = (ITEMS, POSITIONS, VOCABULARY)
    mask = np.arange(POSITIONS) < np.array(LENGTHS)[:, None]
    policy, targets = draw.normal(size=shape) * 1.5, draw.integers(0, VOCABULARY, shape[:2])
    drawn = np.take_along_axis(log_softmax(policy), targets[..., None], -1)[..., 0]
    apart = draw.uniform(0.1, 1.0, shape[:2]) * draw.choice([-1, 1], shape[:2])  # no ratio within 4 % of 2 or 1
    apart = np.where(np.abs(apart - np.log(2)) < 0.04, 0.8, apart)
    return {
        "policy": policy,
        "reference": policy + draw.normal(size=shape) * 0.7,
        "targets": targets,
        "mask": mask,
        "sampler": np.where(mask, (drawn - apart).astype(np.float32), 0).astype(np.float32),
        "advantage": np.array([2.5, -1.5, 0.25, -1.25], np.float32),
        "weight": np.array([0.5, 0.5, 0.25, 0.25], np.float32),
    }


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def by_hand(n: dict[str, np.ndarray], cap: float, beta: float, length: str, doubled: bool) -> np.ndarray:
    """The gradient of the summed loss by the policy's logits. d logp / d logits = onehot - softmax."""
    at = n["targets"][..., None]
    logp, reference = (np.take_along_axis(log_softmax(n[who]), at, -1)[..., 0] for who in ("policy", "reference"))
    ratio = np.exp(logp - n["sampler"])
    slope = -np.minimum(ratio, cap) * n["advantage"][:, None]
    if doubled:
        slope = np.where(ratio < cap, 2 * slope, slope)
    slope = slope + beta * (1 - np.exp(reference - logp))  # of exp(r - p) - (r - p) - 1 by p
    share = n["mask"] / (np.array(LENGTHS)[:, None] if length == "mean" else 1.0) * n["weight"][:, None]
    onehot = np.eye(VOCABULARY)[n["targets"]]
    return (slope * share)[..., None] * (onehot - np.exp(log_softmax(n["policy"])))


def ours(
    n: dict[str, np.ndarray], config: LearnerConfig, quirks: QuirksConfig
) -> tuple[float, np.ndarray, dict[str, float]]:
    logits, targets = torch.from_numpy(n["policy"]).requires_grad_(), torch.from_numpy(n["targets"])
    objective = GroupObjective(config, quirks)
    entropy = token_entropy(logits) if config.entropy > 0 else None
    scored = AnswerScores(token_logp(logits, targets), torch.from_numpy(n["mask"]), entropy)
    micro = ItemMicro(make_dummy(ITEMS), n["weight"], n["advantage"], n["sampler"])
    loss, sums = objective(micro, scored, token_logp(torch.from_numpy(n["reference"]), targets))
    loss.backward()
    assert logits.grad is not None and logits.grad.dtype is torch.float64
    return float(loss.detach()), logits.grad.numpy(), dict(zip(objective.statistics, sums.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("length", ["sum", "mean"])
@pytest.mark.parametrize("rule", ["default", "paper"])
def test_the_gradient_is_the_one_by_hand(
    rule: Literal["default", "paper"], length: Literal["sum", "mean"], seed: int
) -> None:
    n = numbers(seed)
    config = CONFIG.model_copy(update={"length": length})
    _, gradient, _ = ours(n, config, QuirksConfig(grpo_ratio=rule))
    wanted = by_hand(n, 2.0, 0.1, length, doubled=rule == "paper")
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-12)
    assert np.abs(wanted).max() > 0.1


def test_the_papers_ratio_doubles_the_gradient_below_the_cap_and_not_above() -> None:
    n = numbers(1)
    config = CONFIG.model_copy(update={"beta": 1e-12})  # the KL term has no part in it
    _, default, _ = ours(n, config, QuirksConfig())
    _, paper, _ = ours(n, config, QuirksConfig(grpo_ratio="paper"))
    at = n["targets"][..., None]
    logp = np.take_along_axis(log_softmax(n["policy"]), at, -1)[..., 0]
    below = (np.exp(logp - n["sampler"]) < 2.0) & n["mask"]
    above = ~below & n["mask"]
    assert below.sum() >= 3 and above.sum() >= 3
    np.testing.assert_allclose(paper[below], 2 * default[below], rtol=1e-10)  # the KL term is 1e-12 of it
    np.testing.assert_allclose(paper[above], default[above], rtol=1e-10)


def test_the_statistics_are_what_they_say() -> None:
    n = numbers(2)
    config = CONFIG.model_copy(update={"entropy": 0.3})
    loss, _, found = ours(n, config, QuirksConfig())
    policy, reference = log_softmax(n["policy"]), log_softmax(n["reference"])
    logp, ref = (np.take_along_axis(x, n["targets"][..., None], -1)[..., 0] for x in (policy, reference))
    ratio, marks = np.exp(logp - n["sampler"]), n["mask"]
    kl = np.exp(ref - logp) - (ref - logp) - 1
    per_token = -np.minimum(ratio, 2) * n["advantage"][:, None] * logp + 0.1 * kl
    entropy = [-(np.exp(policy[k]) * policy[k]).sum(-1)[marks[k]].mean() for k in range(ITEMS)]
    assert found == pytest.approx(
        {
            "loss": float((n["weight"] * (per_token * marks).sum(1)).sum()),
            "kl": float((kl * marks).sum()),
            "ratio_mean": float((np.minimum(ratio, 2) * marks).sum()),
            "ratio_capped": float(((ratio > 2) & marks).sum()),
            "entropy": float(sum(entropy)),
        },
        rel=1e-6,
    )
    assert loss == pytest.approx(found["loss"] - 0.3 * float((n["weight"] * entropy).sum()))


def test_an_overflowing_ratio_is_the_cap() -> None:
    n = numbers(0)
    n["sampler"] = np.where(n["mask"], -2000.0, 0.0).astype(np.float32)
    for rule in ("default", "paper"):
        loss, gradient, found = ours(n, CONFIG, QuirksConfig(grpo_ratio=rule))  # type: ignore[arg-type]
        assert np.isfinite(loss) and np.isfinite(gradient).all()
        assert (found["ratio_capped"], found["ratio_mean"]) == (sum(LENGTHS), pytest.approx(2.0 * sum(LENGTHS)))


# -- rows to items


def rows() -> Any:
    """Three groups: one with a penalised and an excluded item, one wholly penalised, one wholly excluded; and a lone item."""
    return table(
        group([1, 2], [([3], "ok", 8.0), ([4, 5], "ok", 3.0), ([6, 6, 6], "too_long", -1.0), ([7], "no_room", None)]),
        group([1], [([8], "malformed", -1.0), ([9], "malformed", -1.0)]),
        group([1], [([10], "judge_failed", None), ([11], "no_room", None)]),
        group([1], [([12, 13], "ok", 6.0)]),
    )


def learned(batch: StepBatch) -> dict[tuple[int, ...], tuple[float, float]]:
    """(weight, advantage) of each answer that gets a gradient."""
    found = {}
    for micro in batch.micro:
        assert isinstance(micro, ItemMicro)
        for row, marks in enumerate(micro.sequences.mask_BK):
            if marks.any():
                answer = tuple(micro.sequences.targets_BK[row][marks].tolist())
                found[answer] = (float(micro.weight_B[row]), float(micro.advantage_B[row]))
    return found


def test_default_learns_from_penalised_items_and_leaves_excluded_ones_out_of_everything() -> None:
    batch = make_batch(rows(), CONFIG, QuirksConfig(), 0, 1)
    third, mean = pytest.approx(1 / 3), 10 / 3
    assert learned(batch) == {
        (3,): (third, pytest.approx(8 - mean)),
        (4, 5): (third, pytest.approx(3 - mean)),
        (6, 6, 6): (third, pytest.approx(-1 - mean)),
        (8,): (0.5, 0),
        (9,): (0.5, 0),
        (12, 13): (1, 0),
    }
    assert (batch.rows, batch.units, batch.items, batch.answer_tokens, batch.tokens) == (4, 3, 6, 10, 10 + 9)
    rewards, relative = [8, 3, -1, -1, -1, 6], [8 - mean, 3 - mean, -1 - mean, 0, 0, 0]
    assert batch.facts == pytest.approx(
        {"reward_mean": np.mean(rewards), "padding": 1 - 19 / 30, "advantage_std": np.std(relative)}  # six rows of five
    )


def test_in_paper_penalised_items_shift_the_mean_and_get_no_gradient() -> None:
    batch = make_batch(rows(), CONFIG, QuirksConfig(grpo_penalised="paper"), 0, 1)
    third, mean = pytest.approx(1 / 3), 10 / 3
    assert learned(batch) == {
        (3,): (third, pytest.approx(8 - mean)),
        (4, 5): (third, pytest.approx(3 - mean)),
        (12, 13): (1, 0),
    }
    assert (batch.units, batch.items) == (3, 3), "the wholly penalised group is one of the groups that the mean is over"


def test_a_batch_of_penalties_has_nothing_to_learn_in_paper() -> None:
    only = table(group([1], [([8], "malformed", -1.0), ([9], "malformed", -1.0)]))
    batch = make_batch(only, CONFIG, PAPER, 0, 2)
    assert (batch.units, batch.items, learned(batch)) == (1, 0, {})


def test_rows_without_rewards_are_an_empty_batch() -> None:
    for empty in (SCHEMA.empty_table(), rows().slice(2, 1)):
        batch = make_batch(empty, CONFIG, PAPER, 1, 2)
        assert (batch.units, batch.items, batch.tokens, len(batch.micro)) == (0, 0, 0, 1)
        assert all(np.isfinite(value) for value in batch.facts.values())


@pytest.mark.parametrize(
    ("baseline", "rule", "wanted"),
    [
        ("seed", "default", [[1, -1], [0], [2, -2]]),
        ("batch", "default", [[0, -2], [4], [1, -3]]),  # the mean of 5, 3, 9, 6, 2 is 5
        ("batch", "paper", [[0, -2], [4], [1, -3]]),
        ("seed", "paper", [[1, -1], [10 / 3], [1 / 3, -11 / 3]]),  # ranks hold (5, 3) and (9, 6, 2)
    ],
)
def test_the_baseline_is_the_mean_of_whom_the_recipe_says(baseline: Any, rule: Any, wanted: list[list[float]]) -> None:
    rewards = [np.array([5.0, 3.0]), np.array([9.0]), np.array([6.0, 2.0])]
    config = CONFIG.model_copy(update={"baseline": baseline})
    found = compute_advantages(rewards, [[0], [1, 2]], config, QuirksConfig(grpo_baseline=rule))
    assert [one.tolist() for one in found] == [pytest.approx(one) for one in wanted]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_item_is_learned_once_whatever_rank_it_is_on(ranks: int) -> None:
    draw = np.random.default_rng(0)
    groups, answer = [], 100
    for _ in range(7):
        items = []
        for _ in range(int(draw.integers(1, 5))):
            items.append(([answer] * int(draw.integers(1, 9)), "ok", float(draw.integers(0, 10))))
            answer += 1
        groups.append(group([1] * int(draw.integers(1, 6)), items))
    config = CONFIG.model_copy(update={"max_tokens": 24})
    batches = [make_batch(table(*groups), config, QuirksConfig(), rank, ranks) for rank in range(ranks)]
    assert len({len(batch.micro) for batch in batches}) == 1
    places = [ids for batch in batches for ids in learned(batch)]
    assert sorted(places) == sorted(tuple(item.completion.token_ids) for g in groups for item in g.items)
    alone = make_batch(table(*groups), config, QuirksConfig(), 0, 1)
    together = {ids: values for batch in batches for ids, values in learned(batch).items()}
    assert together == learned(alone), "neither advantage nor weight depends on the rank"
    for micro in (m for batch in batches for m in batch.micro):
        assert micro.sequences.tokens_BT.size <= 24


def test_the_samplers_log_probabilities_stand_where_their_tokens_are_predicted() -> None:
    made = group([1, 2, 3], [([4, 5], "ok", 8.0), ([6], "ok", 3.0)])
    (micro,) = make_batch(table(made), CONFIG, QuirksConfig(), 0, 1).micro
    assert isinstance(micro, ItemMicro)
    assert micro.sequences.targets_BK.tolist() == [[4, 5, 0], [6, 0, 0]]
    assert micro.sampler_BK.tolist() == [[-1, -1, 0], [-1, 0, 0]]
