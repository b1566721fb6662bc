"""Log-probabilities and the DPO loss against torch's own log_softmax, finite differences and hand computations."""

import math

import pytest
import torch

from learners import losses
from learners.losses import STATISTICS, dpo, summed_logp


def example(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    logits_BTV = torch.randn(3, 5, 11, generator=draw).mul(4).to(dtype)
    targets_BT = torch.randint(0, 11, (3, 5), generator=draw)
    mask_BT = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    return logits_BTV, targets_BT, mask_BT


@pytest.mark.parametrize("chunk", [1, 40, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_summed_logp_and_its_gradient_are_log_softmaxs(
    dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", chunk)
    logits, targets, mask = example(dtype)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    got = summed_logp(ours, targets, mask)
    wanted = (theirs.float().log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1) * mask).sum(-1)
    assert got.dtype is torch.float32
    torch.testing.assert_close(got, wanted)
    weights = torch.tensor([1.0, -2.0, 3.0])
    (got * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert ours.grad is not None and ours.grad.dtype is dtype
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert got[2] == 0, "an empty completion has log-probability 0"


def test_the_loss_of_one_pair_by_hand() -> None:
    policy, reference = torch.tensor([-3.0, -7.0]), torch.tensor([-4.0, -5.0])
    loss, sums = dpo(policy, reference, torch.ones(1), beta=0.1)
    # Delta_w = 1, Delta_l = -2: margin 0.1 * 3
    assert float(loss) == pytest.approx(-math.log(1 / (1 + math.exp(-0.3))), abs=1e-6)
    expected = {"loss": float(loss), "accuracy": 1, "margin": 0.3, "delta_chosen": 1, "delta_rejected": -2, "kl": 0.5}
    assert dict(zip(STATISTICS, sums.tolist(), strict=True)) == pytest.approx(expected)


def test_the_gradient_is_beta_times_the_wrongness() -> None:
    policy = torch.tensor([-3.0, -7.0], requires_grad=True)
    loss, _ = dpo(policy, torch.tensor([-4.0, -5.0]), torch.ones(1), beta=0.1)
    loss.backward()
    wrongness = 1 / (1 + math.exp(0.3))  # Rafailov et al. 2023, section 4: the implicit reward's estimate of the order
    assert policy.grad is not None
    assert policy.grad.tolist() == pytest.approx([-0.1 * wrongness, 0.1 * wrongness])


def test_a_row_of_weight_zero_changes_nothing() -> None:
    policy = torch.tensor([-3.0, -100.0, -7.0, -1.0], requires_grad=True)
    reference = torch.tensor([-4.0, -2.0, -5.0, -90.0])
    loss, sums = dpo(policy, reference, torch.tensor([1.0, 0.0]), beta=0.1)
    alone, alone_sums = dpo(policy[::2], reference[::2], torch.ones(1), beta=0.1)
    assert loss == alone
    assert sums.tolist() == alone_sums.tolist()
    loss.backward()
    assert policy.grad is not None
    assert policy.grad[[1, 3]].tolist() == [0, 0]


def test_a_hopeless_margin_stays_finite() -> None:
    policy = torch.tensor([-1e5, 1e5], requires_grad=True)
    loss, _ = dpo(policy, torch.zeros(2), torch.ones(1), beta=0.1)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2e4)
    assert policy.grad is not None and bool(policy.grad.isfinite().all())
