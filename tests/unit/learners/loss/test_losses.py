"""Token log-probabilities, entropies, DPO and IPO: against closed forms written here in numpy, and against TRL's own trainer."""

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from learners.batch.micro_batches import PairMicro, make_dummy
from learners.loss import logprobs
from learners.loss.logprobs import over_tokens, token_entropy, token_logp
from learners.loss.losses import dpo, ipo
from learners.loss.objective import AnswerScores, PairObjective, make_objective
from protocol.recipe import LearnerConfig, QuirksConfig

pytestmark = pytest.mark.numerics
PAIRS, POSITIONS, VOCABULARY = 3, 6, 9
LENGTHS = [4, 2, 6, 1, 5, 3]  # chosen rows, then rejected ones


def example(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, targets and a mask that leaves whole rows, inner stretches and nothing."""
    draw = torch.Generator().manual_seed(0)
    logits_BTV = torch.randn(3, 5, 11, generator=draw, dtype=torch.float64).mul(4).to(dtype)
    targets_BT = torch.randint(0, 11, (3, 5), generator=draw)
    mask_BT = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    return logits_BTV, targets_BT, mask_BT


@pytest.mark.parametrize("chunk", [1, 40, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("what", ["logp", "entropy"])
def test_log_probabilities_entropies_and_gradients_are_log_softmaxs(
    what: str, dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "_CHUNK_ELEMENTS", chunk)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    logits, targets, mask = example(dtype)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    full = theirs.to(wide).log_softmax(-1)
    if what == "logp":
        got, wanted = token_logp(ours, targets), full.gather(-1, targets[..., None]).squeeze(-1)
    else:
        got, wanted = token_entropy(ours), -(full.exp() * full).sum(-1)
    assert got.dtype is wide
    torch.testing.assert_close(got, wanted)
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=wide)
    for values in (got, wanted):
        (over_tokens(values, mask, "sum") * weights).sum().backward()
    assert ours.grad is not None and ours.grad.dtype is dtype
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert torch.equal(ours.detach(), logits), "the backward leaves the logits to whoever reads them next"


def test_an_empty_answer_is_worth_nothing_by_either_length() -> None:
    _, _, mask = example(torch.float32)
    assert over_tokens(torch.ones(3, 5), mask, "sum").tolist() == [3, 5, 0]
    assert over_tokens(torch.ones(3, 5), mask, "mean").tolist() == [1, 1, 0]


# -- closed form and TRL


def random_pairs(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Policy and reference logits (2P, T, V), targets and mask (2P, T), all float64 or integers."""
    draw = np.random.default_rng(seed)
    shape = (2 * PAIRS, POSITIONS, VOCABULARY)
    mask = np.zeros(shape[:2], bool)
    for row, length in enumerate(LENGTHS):
        mask[row, POSITIONS - length - row % 2 : POSITIONS - row % 2] = True
    return draw.normal(size=shape) * 2, draw.normal(size=shape) * 2, draw.integers(0, VOCABULARY, shape[:2]), mask


def closed_form(
    loss: str,
    length: str,
    beta: float,
    policy: np.ndarray,
    reference: np.ndarray,
    targets: np.ndarray,
    mask: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Mean loss over pairs and its gradient by the policy's logits, in numpy, from the equations."""

    def log_softmax(x: np.ndarray) -> np.ndarray:
        shifted = x - x.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))

    onehot = np.eye(VOCABULARY)[targets]
    share = mask / (mask.sum(1, keepdims=True) if length == "mean" else 1.0)
    delta = (((log_softmax(policy) - log_softmax(reference)) * onehot).sum(-1) * share).sum(-1)
    gap = delta[:PAIRS] - delta[PAIRS:]
    if loss == "dpo":
        value, slope = np.log1p(np.exp(-beta * gap)), -beta / (1 + np.exp(beta * gap))
    else:
        value, slope = (gap - 0.5 / beta) ** 2, 2 * (gap - 0.5 / beta)
    by_delta = np.concatenate([slope, -slope]) / PAIRS
    by_logits = (onehot - np.exp(log_softmax(policy))) * share[..., None] * by_delta[:, None, None]
    return float(value.mean()), by_logits


def ours(
    config: LearnerConfig, policy: np.ndarray, reference: np.ndarray, targets: np.ndarray, mask: np.ndarray
) -> tuple[float, np.ndarray, dict[str, float]]:
    logits = torch.from_numpy(policy).requires_grad_()
    marks, ids = torch.from_numpy(mask), torch.from_numpy(targets)
    entropy = token_entropy(logits) if config.entropy > 0 else None
    objective = make_objective(config, QuirksConfig())
    micro = PairMicro(make_dummy(2 * PAIRS), np.ones(PAIRS, np.float32))
    scored = AnswerScores(token_logp(logits, ids), marks, entropy)
    loss, sums = objective(micro, scored, token_logp(torch.from_numpy(reference), ids))
    (loss / PAIRS).backward()
    assert logits.grad is not None and loss.dtype is sums.dtype is logits.grad.dtype is torch.float64
    statistics = dict(zip(objective.statistics, (sums / PAIRS).tolist(), strict=True))
    return float(loss.detach()) / PAIRS, logits.grad.numpy(), statistics


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("length", ["sum", "mean"])
@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_values_and_gradients_are_the_closed_form(
    loss: Literal["dpo", "ipo"], length: Literal["sum", "mean"], beta: float, seed: int
) -> None:
    inputs = random_pairs(seed)
    value, gradient, statistics = ours(LearnerConfig(loss=loss, length=length, beta=beta), *inputs)
    wanted, wanted_gradient = closed_form(loss, length, beta, *inputs)
    assert value == pytest.approx(wanted, abs=1e-12, rel=1e-12)
    assert statistics["loss"] == pytest.approx(wanted)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-10, atol=1e-14)


@pytest.fixture(scope="module")
def trl_trainer() -> Any:
    """TRL's class, which is never constructed: importing it takes seconds."""
    from trl.trainer.dpo_trainer import DPOTrainer

    return DPOTrainer


class LogitsModel(torch.nn.Module):
    """What `DPOTrainer._compute_loss` asks of a model, from given logits and torch's own log_softmax."""

    def __init__(self, logits_BTV: torch.Tensor) -> None:
        super().__init__()
        self.logits_BTV = logits_BTV

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, **_: Any) -> SimpleNamespace:
        following = labels[:, 1:]
        logp = self.logits_BTV.log_softmax(-1).gather(-1, following.clamp(min=0)[..., None]).squeeze(-1)
        zeros = torch.zeros_like(logp)
        return SimpleNamespace(
            log_probs=torch.where(following == -100, 0.0, logp), entropy=zeros, mean_logits=zeros, is_top1=zeros > 0
        )


def trls(
    trainer: Any,
    loss: str,
    beta: float,
    policy: np.ndarray,
    reference: np.ndarray,
    targets: np.ndarray,
    mask: np.ndarray,
) -> tuple[float, np.ndarray]:
    logits = torch.from_numpy(policy).requires_grad_()
    model = LogitsModel(logits)
    accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    stub = SimpleNamespace(
        model=model,
        ref_model=LogitsModel(torch.from_numpy(reference)),
        accelerator=accelerator,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        loss_types=[loss],
        loss_weights=[1.0],
        beta=beta,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    model.is_gradient_checkpointing = False  # type: ignore[attr-defined]
    first = ((0, 0), (1, 0))  # TRL's targets are the input shifted by one: a token before the first
    inputs = {
        "input_ids": torch.from_numpy(np.pad(targets, first)),
        "attention_mask": torch.from_numpy(np.pad(mask, first)),
        "completion_mask": torch.from_numpy(np.pad(mask, first)).long(),
    }
    value = trainer._compute_loss(stub, model, inputs, False)
    value.backward()
    assert logits.grad is not None
    return float(value.detach()), logits.grad.numpy()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("loss", "length", "theirs"),
    [("dpo", "sum", "sigmoid"), ("dpo", "mean", "sigmoid_norm"), ("ipo", "mean", "ipo")],
)
def test_values_and_gradients_are_trls(
    loss: Literal["dpo", "ipo"], length: Literal["sum", "mean"], theirs: str, seed: int, trl_trainer: Any
) -> None:
    inputs = random_pairs(seed)
    value, gradient, _ = ours(LearnerConfig(loss=loss, length=length, beta=0.1), *inputs)
    wanted, wanted_gradient = trls(trl_trainer, theirs, 0.1, *inputs)
    assert value == pytest.approx(wanted, abs=1e-12, rel=1e-12)
    assert np.abs(wanted_gradient).max() > 1e-3
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=0, atol=1e-12)


# -- by hand


def test_the_loss_of_one_pair_by_hand() -> None:
    gap = torch.tensor([3.0])  # Delta_w = 1, Delta_l = -2
    assert float(dpo(gap, 0.1)) == pytest.approx(-math.log(1 / (1 + math.exp(-0.3))), abs=1e-6)
    assert float(ipo(gap, 0.1)) == pytest.approx((3 - 5) ** 2)
    assert float(dpo(torch.tensor([-2e5]), 0.1)) == pytest.approx(2e4), "a hopeless margin stays finite"


def scored(*logp: float) -> AnswerScores:
    return AnswerScores(torch.tensor(logp)[:, None].requires_grad_(), torch.ones(len(logp), 1, dtype=torch.bool), None)


def test_the_statistics_of_one_pair_by_hand() -> None:
    micro = PairMicro(make_dummy(2), np.ones(1, np.float32))
    reference = torch.tensor([[-4.0], [-5.0]])
    expected = {"accuracy": 1, "margin": 0.3, "delta_chosen": 1, "delta_rejected": -2, "kl": 0.5}
    for config, kl in [
        (LearnerConfig(), 0.5),
        # The policy drew the batch, or its average did: the same mean is an estimate of the other KL, with the other sign.
        (LearnerConfig(reference="frozen", sampler="policy"), -0.5),
        (LearnerConfig(reference="frozen"), -0.5),
        (LearnerConfig(reference="sampler"), 0.5),  # whoever drew the batch is the reference
        (LearnerConfig(reference="sampler", sampler="policy"), 0.5),
    ]:
        objective = PairObjective(config)
        loss, sums = objective(micro, scored(-3.0, -7.0), reference)
        found = dict(zip(objective.statistics, sums.tolist(), strict=True))
        gap = {"sampler_gap": 3} if config.reference == "sampler" else {}  # |1| and |-2|, summed over the two tokens
        assert found == pytest.approx({"loss": float(loss.detach())} | expected | {"kl": kl} | gap)


def test_a_dummy_changes_nothing() -> None:
    objective = PairObjective(LearnerConfig())
    both = scored(-3.0, -100.0, -7.0, -1.0)
    reference = torch.tensor([[-4.0], [-2.0], [-5.0], [-90.0]])
    loss, sums = objective(PairMicro(make_dummy(4), np.array([1, 0], np.float32)), both, reference)
    alone = PairMicro(make_dummy(2), np.ones(1, np.float32))
    wanted, wanted_sums = objective(alone, scored(-3.0, -7.0), reference[::2])
    assert (float(loss.detach()), sums.tolist()) == (float(wanted.detach()), wanted_sums.tolist())
    loss.backward()
    assert both.logp_BK.grad is not None
    assert both.logp_BK.grad[[1, 3]].tolist() == [[0], [0]]


def test_nll_and_entropy_add_their_gradients_and_are_reported_unweighted() -> None:
    policy, reference, targets, mask = random_pairs(5)
    plain, plain_gradient, base = ours(LearnerConfig(), policy, reference, targets, mask)
    value, gradient, statistics = ours(LearnerConfig(nll=0.5, entropy=0.2), policy, reference, targets, mask)
    logits = torch.from_numpy(policy).requires_grad_()
    logp = logits.log_softmax(-1)
    nll, entropy = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        at = torch.from_numpy(np.flatnonzero(mask[row]))
        assert len(at) == length
        if row < PAIRS:
            nll = nll - logp[row, at, torch.from_numpy(targets[row])[at]].mean() / PAIRS
        entropy = entropy - (logp[row, at].exp() * logp[row, at]).sum(-1).mean() / (2 * PAIRS)
    (0.5 * nll - 0.2 * entropy).backward()
    assert logits.grad is not None
    assert value - plain == pytest.approx(float((0.5 * nll - 0.2 * entropy).detach()))
    np.testing.assert_allclose(gradient - plain_gradient, logits.grad.numpy(), atol=1e-12)
    assert statistics == pytest.approx(base | {"nll": float(nll.detach()), "entropy": float(entropy.detach())})
