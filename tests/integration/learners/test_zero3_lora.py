"""Adapters under ZeRO-3 on two gloo ranks against peft in one process: gradients, steps, references, and what is staged.

The ranks run once and leave files. The reference starts from the same adapters, is written from the equations, one sequence at a
time, and shares no code with `learners`.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from learners.zero3.lora import Adapters
from protocol.errors import UserError
from protocol.recipe import LoraConfig
from tests.integration.learners.ranks import CONFIG, QUIRKS, run_ranks, table
from tests.integration.learners.test_zero3_modes import load, scores
from tests.integration.tiny_qwen import VOCABULARY, tiny_model
from tests.numerics import GAP, ROUNDING, steady_engine, threads, weights_apart

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow, pytest.mark.numerics]

STEPS, SAVED = 3, 2
EPSILON = 1e-3  # Adam's: see `steady_engine`
RATES = [2e-2, 1.2e-2, 0.4e-2]  # a cosine of three steps; adapters want a higher rate than weights
LORA = LoraConfig(rank=4, alpha=6.0, targets=("q_proj", "v_proj", "down_proj"))
EMA = CONFIG.model_copy(update={"lr": RATES[0], "warmup_steps": 0, "clip": 1e6, "lora": LORA})
# Small parameters whole on every rank, activations computed again, the fixed start as the reference: none of it moves a number.
FROZEN = EMA.model_copy(
    update={
        "reference": "frozen",
        "sampler": "policy",
        "stage3_param_persistence_threshold": 100_000,
        "activation_checkpointing": True,
    }
)
MODES = {"ema": EMA, "frozen": FROZEN, "offloaded": EMA.model_copy(update={"offload": "all"})}


# -- the ranks


def _adapters(engine: Any, read: Any) -> dict[str, torch.Tensor]:
    """Something of each of the policy's adapters, under peft's names."""
    named = {n: p for n, p in engine._policy.module.named_parameters() if p.requires_grad}
    return {n.replace(".policy.a.", ".lora_A.").replace(".policy.b.", ".lora_B."): read(p) for n, p in named.items()}


def _staged(engine: Any) -> dict[str, torch.Tensor] | None:
    manifest, packed = engine.stage("float32", "defender", 1, engine.steps_done)
    if packed is None:
        return None
    buffer = torch.from_numpy(packed)
    return {t.name: buffer[t.offset : t.offset + t.nbytes].view(torch.float32).view(t.shape) for t in manifest.tensors}


def _lora_run(rank: int, ranks: int, model: str, out: Path) -> None:
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad

    from learners.batch.build import make_batch

    for name, config in MODES.items():
        batches = [make_batch(table(step), config, QUIRKS, rank, ranks) for step in range(STEPS)]
        engine = steady_engine(model, config, STEPS, QUIRKS, EPSILON)
        start = _adapters(engine, lambda p: safe_get_full_fp32_param(p).clone())
        held = sorted({type(m).__name__ for m in (engine._reference, engine._average) if m is not None})
        before = _staged(engine)
        log = [engine.step(batches[step], step) for step in range(SAVED)]
        engine.save(out / f"{name}-saved")
        log.append(engine.step(batches[SAVED], SAVED))
        after = _staged(engine)
        again = steady_engine(model, config, STEPS, QUIRKS, EPSILON)
        again.load(out / f"{name}-saved")
        gradient: dict[str, torch.Tensor] = {}
        take_step = again._policy.step

        def noting(take_step: Any = take_step, again: Any = again, gradient: Any = gradient) -> None:
            gradient |= _adapters(again, lambda p: safe_get_full_grad(p).clone())
            take_step()

        again._policy.step = noting
        resumed = again.step(batches[SAVED], SAVED)
        after_again = _staged(again)
        engine.export(out / f"{name}-export", "float32")
        again.export_adapter(out / f"{name}-adapter")
        engine.save(out / f"{name}-end")
        if rank == 0:
            torch.save(
                {"start": start, "before": before, "gradient": gradient, "after": after, "again": after_again},
                out / f"{name}.pt",
            )
            (out / f"{name}.json").write_text(json.dumps({"log": log, "resumed": resumed, "held": held}))


# -- peft


class Peft:
    """The policy with peft's adapters, and the averaged factors."""

    def __init__(self, model: str, start: dict[str, torch.Tensor]) -> None:
        import peft

        config = peft.LoraConfig(
            r=LORA.rank, lora_alpha=LORA.alpha, target_modules=list(LORA.targets), lora_dropout=0.0, bias="none"
        )
        self.net = peft.get_peft_model(load(model), config)
        prefix, infix = "base_model.model.", ".default."
        self.factors = {
            name.removeprefix(prefix).replace(infix, "."): p
            for name, p in self.net.named_parameters()
            if p.requires_grad
        }
        assert self.factors.keys() == start.keys()
        self.put(start)
        self.average = {name: value.double() for name, value in start.items()}
        self.optimizer = torch.optim.AdamW(self.factors.values(), betas=(0.9, 0.95), eps=EPSILON, weight_decay=0.1)

    def put(self, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, factor in self.factors.items():
                factor.copy_(values[name])

    def reference_logp(self, mode: str, sequences: list[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
        with torch.no_grad():
            if mode == "frozen":
                with self.net.disable_adapter():
                    return [scores(self.net, *sequence).sum() for sequence in sequences]
            mine = {name: factor.detach().clone() for name, factor in self.factors.items()}
            self.put(self.average)
            found = [scores(self.net, *sequence).sum() for sequence in sequences]
            self.put(mine)
            return found

    def loss(self, mode: str, step: int) -> torch.Tensor:
        sequences = []  # a chosen one, its rejected one, and so on
        for row in table(step).to_pylist():
            if row["preferences"][0]["winner"] is None:
                continue
            bad, good = sorted(row["items"], key=lambda item: item["reward"])
            cut = len(good["token_ids"]) if bad["state"] == "too_long" else None
            sequences += [(row["prompt_ids"], ids) for ids in (good["token_ids"], bad["token_ids"][:cut])]
        reference = self.reference_logp(mode, sequences)
        delta = [scores(self.net, *sequence).sum() - r for sequence, r in zip(sequences, reference, strict=True)]
        gaps = [won - lost for won, lost in zip(delta[::2], delta[1::2], strict=True)]
        return torch.stack([-torch.sigmoid(0.1 * gap).log() for gap in gaps]).mean()

    def step(self, mode: str, step: int) -> float:
        loss = self.loss(mode, step)
        self.optimizer.param_groups[0]["lr"] = RATES[step]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for name, factor in self.factors.items():
            self.average[name] = 0.95 * self.average[name] + 0.05 * factor.detach()
        return float(loss.detach())


# -- what is asserted


@pytest.fixture(scope="module")
def ran(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lora")
    run_ranks(_lora_run, model, out, timeout_s=300.0)
    return out


def found(ran: Path, mode: str) -> dict[str, Any]:
    return torch.load(ran / f"{mode}.pt") | json.loads((ran / f"{mode}.json").read_text())


@pytest.mark.parametrize("mode", MODES)
def test_gradients_steps_and_merged_weights_are_pefts(ran: Path, model: str, mode: str) -> None:
    torch.set_num_threads(threads())
    ours = found(ran, mode)
    theirs = Peft(model, ours["start"])
    losses = [theirs.step(mode, step) for step in range(SAVED)]
    theirs.optimizer.zero_grad()
    theirs.loss(mode, SAVED).backward()
    for name, factor in theirs.factors.items():
        assert factor.grad is not None and factor.grad.abs().max() > 1e-3
        # The longest sum's rounding.
        bound = VOCABULARY * ROUNDING * float(factor.grad.norm())
        torch.testing.assert_close(ours["gradient"][name].to(factor.grad.dtype), factor.grad, rtol=0, atol=bound)
    losses.append(theirs.step(mode, SAVED))
    assert [m["loss"] for m in ours["log"]] == pytest.approx(losses, abs=0.05 * GAP)  # beta / 2 steep
    assert abs(losses[-1] - losses[0]) > 1e-3, "adapters that do nothing would prove nothing"
    if mode != "frozen":
        theirs.put(theirs.average)
    merged = dict(theirs.net.merge_and_unload().named_parameters())
    assert list(ours["after"]) == list(merged), "plain Hugging Face names, in the model's order"
    apart = max(float((ours["after"][name] - merged[name].detach()).abs().max()) for name in merged)
    # alpha / rank times a sum of `rank` products, in which either factor is off.
    size = max(float(factor.detach().abs().max()) for factor in theirs.factors.values())
    factors_apart = weights_apart(RATES, max(m["grad_norm"] for m in ours["log"]), EPSILON)
    assert apart < 2 * LORA.alpha * size * factors_apart + 2 * ROUNDING


@pytest.mark.parametrize("mode", MODES)
def test_only_the_targets_move_and_a_fresh_adapter_is_nothing(ran: Path, model: str, mode: str) -> None:
    ours, start = found(ran, mode), dict(load(model).named_parameters())
    assert all(torch.equal(ours["before"][name].double(), tensor.detach()) for name, tensor in start.items())
    moved = {name for name, tensor in start.items() if not torch.equal(ours["after"][name].double(), tensor.detach())}
    assert moved == {name for name in start if name.split(".")[-2:] in [[target, "weight"] for target in LORA.targets]}


@pytest.mark.parametrize("mode", MODES)
def test_no_second_model_is_held(ran: Path, mode: str) -> None:
    assert found(ran, mode)["held"] == ([] if mode == "frozen" else ["Average"])


@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_holds_adapters_alone_and_goes_on_exactly(ran: Path, model: str, mode: str) -> None:
    ours = found(ran, mode)
    assert all(torch.equal(ours["after"][name], tensor) for name, tensor in ours["again"].items())
    assert ours["resumed"]["loss"] == ours["log"][-1]["loss"]
    factors = sum(factor.numel() for factor in ours["start"].values())
    held = sum(file.stat().st_size for file in (ran / f"{mode}-saved").rglob("*.pt"))
    # Master, two moments and the average in fp32, and what pickling and DeepSpeed's own bookkeeping take.
    assert held < 4 * 4 * factors + 200_000
    whole = sum(p.numel() for p in load(model).parameters())
    assert 4 * whole > 3 * 4 * factors, "the model is large enough for its absence to be seen"


def test_the_export_loads_without_knowing_of_adapters(ran: Path) -> None:
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(ran / "ema-export", dtype="auto")
    for name, tensor in found(ran, "ema")["after"].items():
        assert torch.equal(loaded.get_parameter(name), tensor)


@pytest.mark.parametrize("mode", MODES)
def test_the_exported_adapter_is_what_was_merged(ran: Path, model: str, mode: str) -> None:
    import peft

    merged = peft.PeftModel.from_pretrained(load(model), ran / f"{mode}-adapter").merge_and_unload()
    for name, tensor in found(ran, mode)["after"].items():
        torch.testing.assert_close(
            merged.get_parameter(name).detach().to(tensor.dtype), tensor, rtol=0, atol=4 * ROUNDING
        )


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("q_proj", "c_attn"), "c_attn names no linear layer of the model; pick from down_proj, gate_proj"),
        (("lm_head",), "lm_head shares its weights with another layer of the model; pick from"),
    ],
)
def test_targets_that_cannot_be_adapted_are_refused(targets: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as refused:
        Adapters(tiny_model(0), LoraConfig(targets=targets), averaged=False, seed=0)
    assert f"learners.*.lora.targets: {said}" in str(refused.value)


@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_is_made_a_folder_with_its_adapters_merged(
    ran: Path, model: str, mode: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from learners.storage.consolidate import consolidate

    consolidate(ran / f"{mode}-end", Path(model), tmp_path / "folder", "float32", MODES[mode].sampler)
    made, exported = (load_file(f / "model.safetensors") for f in (tmp_path / "folder", ran / f"{mode}-export"))
    assert made.keys() == exported.keys()
    for name, tensor in exported.items():
        torch.testing.assert_close(made[name], tensor, rtol=0, atol=1e-6)
