"""ZeRO-3 is real and right: two gloo ranks against a plain-torch run in one process.

The ranks run once for each fixture, do everything that is asserted below and leave files; the reference is written here, from the
equations, and shares no code with `learners` but the rows it reads.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.learners.ranks import CLIP, CONFIG, EPSILON, HALF, QUIRKS, STEPS, run_ranks, table
from tests.integration.tiny_qwen import VOCABULARY, save_tiny
from tests.numerics import GAP, ROUNDING, steady_engine, threads, weights_apart

pytestmark = [pytest.mark.timeout(400), pytest.mark.numerics]

# -- the ranks


def _gathered(engine: Any) -> dict[str, torch.Tensor]:
    """The policy's whole weights."""
    import deepspeed

    named = dict(engine._policy.module.named_parameters())
    with torch.no_grad(), deepspeed.zero.GatheredParameters(list(named.values())):
        return {name: p.detach().double() for name, p in named.items()}


def _train(engine: Any, first: int, last: int, plain: dict[str, torch.Tensor] | None = None) -> list[dict[str, float]]:
    """Steps `first` to `last`; `plain` follows the gathered policy as the EMA should."""
    from learners.batch.build import make_batch

    log = []
    for k in range(first, last):
        log.append(engine.step(make_batch(table(k), engine.config, QUIRKS, engine.rank, engine.world), k))
        if plain is not None:
            for name, weights in _gathered(engine).items():
                plain[name] = 0.95 * plain[name] + 0.05 * weights
    return log


def _main_run(rank: int, ranks: int, model: str, out: Path) -> None:
    engine = steady_engine(model, CONFIG, STEPS, QUIRKS, EPSILON)
    held = [(p.ds_tensor.numel(), p.ds_numel) for p in engine._policy.module.parameters()]
    plain = _gathered(engine)
    log = _train(engine, 0, HALF, plain)
    _, packed = engine.stage("float32", "defender", 7, HALF)
    if packed is not None:
        packed.tofile(out / "half.bin")
    engine.save(out / "step-10")
    log += _train(engine, HALF, STEPS, plain)
    manifest, packed = engine.stage("float32", "defender", 8, STEPS)
    engine.export(out / "export", "float32")
    half_precision, packed16 = engine.stage("bfloat16", "defender", 8, STEPS)
    engine.export(out / "export16", "bfloat16")
    # The same numbers where small parameters stay whole on every rank, and nothing tests ZeRO.
    persisting = CONFIG.model_copy(update={"stage3_param_persistence_threshold": 100_000})
    persistent = _train(steady_engine(model, persisting, STEPS, QUIRKS, EPSILON), 0, HALF)
    tiny_steps = _tiny_steps(model)
    (out / f"log-{rank}.json").write_text(
        json.dumps({"held": held, "log": log, "persistent": persistent, **tiny_steps})
    )
    if packed is not None and packed16 is not None:
        torch.save(plain, out / "plain-ema.pt")
        torch.save(
            {"manifest": manifest, "bytes": packed, "manifest16": half_precision, "bytes16": packed16},
            out / "staged.pt",
        )


def _tiny_steps(model: str) -> dict[str, Any]:
    """bfloat16 compute at the paper's learning rate: the average beside a plain one on the gathered fp32 weights."""
    from deepspeed.utils import safe_get_full_fp32_param

    from learners.zero3.engine import ZeroEngine

    engine = ZeroEngine(model, CONFIG.model_copy(update={"lr": 1e-6, "dtype": "bfloat16"}), STEPS, 0, QUIRKS)

    def gathered() -> dict[str, torch.Tensor]:
        return {name: safe_get_full_fp32_param(p).double() for name, p in engine._policy.module.named_parameters()}

    start = gathered()
    plain, losses = start, []
    for k in range(HALF):
        losses += [m.get("loss", 0.0) for m in _train(engine, k, k + 1)]
        plain = {name: 0.95 * plain[name] + 0.05 * weights for name, weights in gathered().items()}
    manifest, packed = engine.stage("float32", "defender", 9, HALF)
    # What a reference forward computes with: this rank's bfloat16 partition and the fp32 shard that it was copied from.
    shards = engine._average.shards
    copied = all(torch.equal(p.ds_tensor, shards[n].bfloat16()) for n, p in engine._reference.module.named_parameters())
    found: dict[str, Any] = {"tiny_losses": losses, "tiny_copied": copied, "tiny_rounded": []}
    for sampler in ("ema", "policy"):
        engine.config = engine.config.model_copy(update={"sampler": sampler})
        whole, half = (engine.stage(dtype, "defender", 9, HALF)[1] for dtype in ("float32", "bfloat16"))
        if whole is not None and half is not None:
            rounded = torch.from_numpy(whole).view(torch.float32).bfloat16()
            found["tiny_rounded"].append(torch.equal(rounded, torch.from_numpy(half).view(torch.bfloat16)))
    if packed is not None:
        buffer = torch.from_numpy(packed)
        ours = {
            t.name: buffer[t.offset : t.offset + t.nbytes].view(torch.float32).view(t.shape) for t in manifest.tensors
        }
        found["tiny_moved"] = {name: float((ours[name] - start[name]).abs().max()) for name in start}
        apart = {name: (ours[name] - plain[name]).abs() for name in start}
        found["tiny_apart"] = max(float(tensor.max()) for tensor in apart.values())
        found["tiny_share"] = {n: float(apart[n].mean() / (plain[n] - start[n]).abs().mean()) for n in start}
    return found


def _resumed_run(rank: int, ranks: int, model: str, out: Path) -> None:
    engine = steady_engine(model, CONFIG, STEPS, QUIRKS, EPSILON)
    engine.load(out / "step-10")
    position = (engine.steps_done, engine.version)
    _, packed = engine.stage("float32", "defender", 7, HALF)
    if packed is not None:
        packed.tofile(out / "half-loaded.bin")
    log = _train(engine, HALF, STEPS)
    (out / f"resumed-{rank}.json").write_text(json.dumps({"position": position, "log": log}))


@pytest.fixture(scope="module")
def ran(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    run_ranks(_main_run, model, out)
    return out


# -- the reference


def rate(step: int) -> float:
    """Of 20 steps, two of them warm-up: a cosine from 1e-3 to a fifth of it."""
    return 1e-3 * (step + 1) / 2 if step < 2 else 1e-3 * (0.2 + 0.8 * (1 + math.cos(math.pi * (step - 2) / 17)) / 2)


def plain_torch(model: str) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """One process, float64, no batching, no padding: losses and gradient norms of each step, and the EMA after the last."""
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    ema = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    optimizer = torch.optim.AdamW(policy.parameters(), betas=(0.9, 0.95), eps=EPSILON, weight_decay=0.1)

    def logp(net: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
        logits = net(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        return logits.double().log_softmax(-1)[range(len(answer)), answer].sum()

    losses, norms = [], []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = rate(step)
        terms = []
        for row in table(step).to_pylist():
            if row["preferences"][0]["winner"] is None and row["items"][1]["state"] == "ok":
                continue
            bad, good = sorted(row["items"], key=lambda item: item["reward"])
            if row["preferences"][0]["winner"] is None:
                continue
            cut = len(good["token_ids"]) if bad["state"] == "too_long" else None
            delta = []
            for ids in (good["token_ids"], bad["token_ids"][:cut]):
                with torch.no_grad():
                    reference = logp(ema, row["prompt_ids"], ids)
                delta.append(logp(policy, row["prompt_ids"], ids) - reference)
            terms.append(-torch.sigmoid(0.1 * (delta[0] - delta[1])).log())
        if terms:
            loss = torch.stack(terms).mean()
            optimizer.zero_grad()
            loss.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(policy.parameters(), CLIP)))
            optimizer.step()
            losses.append(float(loss.detach()))
        else:
            losses.append(0.0)
            norms.append(0.0)
        with torch.no_grad():
            for kept, new in zip(ema.parameters(), policy.parameters(), strict=True):
                kept.copy_(0.95 * kept + 0.05 * new)
    return losses, norms, dict(ema.named_parameters())


@pytest.fixture(scope="module")
def reference(model: str) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    torch.set_num_threads(threads())
    return plain_torch(model)


# -- what is asserted


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def staged(ran: Path, suffix: str = "") -> dict[str, torch.Tensor]:
    found = torch.load(ran / "staged.pt", weights_only=False)
    buffer = torch.from_numpy(found["bytes" + suffix])
    return {
        t.name: buffer[t.offset : t.offset + t.nbytes].view(getattr(torch, t.dtype)).view(t.shape)
        for t in found["manifest" + suffix].tensors
    }


def test_each_of_two_ranks_holds_half_of_every_parameter(ran: Path) -> None:
    for rank in (0, 1):
        held = read(ran / f"log-{rank}.json")["held"]
        assert all(math.ceil(whole / 2) == mine for mine, whole in held)
        assert sum(mine for mine, _ in held) == pytest.approx(sum(whole for _, whole in held) / 2, rel=1e-3)


def test_twenty_steps_give_the_losses_of_plain_torch(ran: Path, reference: Any) -> None:
    log = read(ran / "log-0.json")["log"]
    losses, norms, _ = reference
    # The loss of a pair is at most beta / 2 steep where the policy is still near its reference.
    assert [m.get("loss", 0.0) for m in log] == pytest.approx(losses, abs=0.05 * GAP)
    assert [m["grad_norm"] for m in log] == pytest.approx(
        norms, rel=VOCABULARY * ROUNDING
    )  # the longest sum's rounding
    assert max(norms) > CLIP > min(n for n in norms if n), (
        f"the clip must bind in some steps and not in others: {norms}"
    )
    # A policy that stays on its reference has the loss ln 2 on every batch, and would prove nothing.
    assert max(abs(loss - math.log(2)) for loss in losses if loss) > 0.03


def test_all_ranks_report_the_same_means(ran: Path) -> None:
    first, second = (
        [{k: v for k, v in m.items() if k != "seconds"} for m in read(ran / f"log-{rank}.json")["log"]]
        for rank in (0, 1)
    )
    assert first == second


def test_a_batch_without_a_pair_is_a_counted_step_that_changes_nothing(ran: Path) -> None:
    log = read(ran / "log-0.json")["log"]
    assert (log[5]["pairs"], log[5]["items"], log[5]["grad_norm"]) == (0, 0, 0)
    assert log[5]["lr"] > 0 and "loss" in log[4], "a loss of 0 would be a measurement that nobody took"
    assert set(log[4]) - set(log[5]) == {
        "loss",
        "accuracy",
        "margin",
        "delta_chosen",
        "delta_rejected",
        "kl",
        "padding",
    }
    assert (log[3]["pairs"], log[3]["rows"]) == (1, 1)


def test_parameters_that_stay_whole_give_the_same_losses(ran: Path) -> None:
    found = read(ran / "log-0.json")
    stayed, parted = ([m.get("loss", 0.0) for m in found[name][:HALF]] for name in ("persistent", "log"))
    assert stayed == pytest.approx(parted, abs=0.05 * GAP)


def test_the_ema_is_the_average_of_the_gathered_weights(ran: Path) -> None:
    ours, plain = staged(ran), torch.load(ran / "plain-ema.pt")
    assert list(ours) == list(plain)
    # The plain one is float64; ours is rounded twice a step, and holds weights of size 1 at most.
    assert max(float((ours[name] - plain[name]).abs().max()) for name in ours) < 2 * STEPS * ROUNDING


def test_the_ema_is_that_of_the_plain_run(ran: Path, reference: Any) -> None:
    ours, (_, norms, theirs) = staged(ran), reference
    assert max(float(tensor.abs().max()) for tensor in ours.values()) < 1.01
    apart = max(float((ours[name] - theirs[name].detach()).abs().max()) for name in ours)
    assert apart < weights_apart([rate(step) for step in range(STEPS)], max(norms), EPSILON)


def test_the_manifest_describes_its_bytes(ran: Path) -> None:
    found = torch.load(ran / "staged.pt", weights_only=False)
    manifest = found["manifest"]
    assert manifest.checksum == "", "it is taken behind the learner's back"
    assert (manifest.player, manifest.version, manifest.step, manifest.nbytes) == (
        "defender",
        8,
        STEPS,
        found["bytes"].size,
    )
    assert "lm_head.weight" not in [t.name for t in manifest.tensors]


@pytest.mark.parametrize(("folder", "suffix", "dtype"), [("export", "", "float32"), ("export16", "16", "bfloat16")])
def test_the_export_loads_and_equals_what_was_staged(ran: Path, folder: str, suffix: str, dtype: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from learners.storage.models import check_model_folder

    check_model_folder(str(ran / folder), "test")
    loaded = AutoModelForCausalLM.from_pretrained(ran / folder, dtype="auto")
    assert loaded.dtype is getattr(torch, dtype)
    for name, tensor in staged(ran, suffix).items():
        assert torch.equal(loaded.get_parameter(name), tensor)
    tokenizer = AutoTokenizer.from_pretrained(ran / folder)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "w1"}], tokenize=False)
    assert not list(ran.glob("*.tmp"))


def test_a_resumed_run_goes_on_exactly(ran: Path, model: str) -> None:
    run_ranks(_resumed_run, model, ran)
    resumed, whole = read(ran / "resumed-0.json"), read(ran / "log-0.json")["log"]
    assert resumed["position"] == [HALF, 7]
    assert [m["loss"] for m in resumed["log"]] == [m["loss"] for m in whole[HALF:]]
    assert [m["lr"] for m in resumed["log"]] == [m["lr"] for m in whole[HALF:]]
    assert (ran / "half-loaded.bin").read_bytes() == (ran / "half.bin").read_bytes()


def _single(rank: int, ranks: int, model: str, out: Path) -> None:
    """One rank: an untied head, and somebody else's checkpoint."""
    from learners.zero3.engine import ZeroEngine
    from protocol.errors import UserError

    said = ""
    engine = ZeroEngine(model, CONFIG.model_copy(update={"dtype": "bfloat16", "ranks": 1}), STEPS, 0, QUIRKS)
    engine.export(out / "untied", "bfloat16")
    try:
        engine.load(out / "step-10")
    except UserError as error:
        said = str(error)
    (out / "single.json").write_text(json.dumps({"said": said}))


@pytest.fixture(scope="module")
def single(ran: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untied")
    save_tiny(folder, seed=2, tied=False)
    run_ranks(_single, str(folder), ran, ranks=1)
    return ran


def test_in_bfloat16_at_a_tiny_learning_rate_the_ema_moves_as_a_plain_one(ran: Path) -> None:
    found = read(ran / "log-0.json")
    assert all(5e-7 < moved < 1e-5 for moved in found["tiny_moved"].values())
    # Against float64: what is left is float32's rounding, twice a step, as often up as down, so that little remains in the mean
    # beside the movement. A bfloat16 average would not have moved at all.
    assert found["tiny_apart"] < 2 * HALF * ROUNDING
    assert all(share < 0.3 for share in found["tiny_share"].values())
    assert found["tiny_copied"] and read(ran / "log-1.json")["tiny_copied"]
    assert found["tiny_rounded"] == [True, True]  # what is pushed in bfloat16: the fp32 weights, rounded once
    assert all(math.isfinite(loss) for loss in found["tiny_losses"])


def test_an_untied_head_is_exported(single: Path) -> None:
    from safetensors import safe_open

    with safe_open(single / "untied" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" in file.keys()  # noqa: SIM118 - not a dict


def test_a_checkpoint_of_another_model_is_refused_in_words(single: Path) -> None:
    said = read(single / "single.json")["said"]
    assert "step-10: written by a learner of another model (1 parameters differ, as lm_head.weight)" in said


def _other_ranks(rank: int, ranks: int, model: str, out: Path) -> None:
    """Goes on from two ranks' checkpoint; and as bfloat16 with small parameters whole on every rank."""
    engine = steady_engine(model, CONFIG.model_copy(update={"ranks": ranks}), STEPS, QUIRKS, EPSILON)
    engine.load(out / "step-10")
    _, packed = engine.stage("float32", "defender", 7, HALF)
    if packed is not None:
        packed.tofile(out / f"half-on-{ranks}.bin")
    masters = _gathered(engine)
    log = _train(engine, HALF, STEPS)
    engine.save(out / f"on-{ranks}" / "step-20")
    rounded = CONFIG.model_copy(update={"dtype": "bfloat16", "stage3_param_persistence_threshold": 100_000})
    other = steady_engine(model, rounded, STEPS, QUIRKS, EPSILON)
    other.load(out / "step-10")
    same = [torch.equal(_gathered(other)[name], tensor.bfloat16().double()) for name, tensor in masters.items()]
    (out / f"on-{ranks}-{rank}.json").write_text(json.dumps({"log": log, "rounded": all(same)}))


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_checkpoint_of_two_ranks_goes_on_with_another_number_of_them(ran: Path, model: str, ranks: int) -> None:
    run_ranks(_other_ranks, model, ran, ranks=ranks)
    assert (ran / f"half-on-{ranks}.bin").read_bytes() == (ran / "half.bin").read_bytes(), "the average, to the bit"
    found, whole = read(ran / f"on-{ranks}-0.json"), read(ran / "log-0.json")["log"]
    assert found["rounded"], "what computes has the masters, rounded once"
    for now, then in zip(found["log"], whole[HALF:], strict=True):
        assert now["lr"] == then["lr"]
        # The order of sums is another on other ranks; a moment or a step of Adam's that was lost would show from the first update.
        assert now["loss"] == pytest.approx(then["loss"], rel=1e-4), then
        assert now["grad_norm"] == pytest.approx(then["grad_norm"], rel=1e-3)
    assert (ran / f"on-{ranks}" / "step-20" / f"rank-{ranks - 1}.pt").is_file()


def test_a_checkpoint_is_made_a_folder_without_a_learner_group(ran: Path, model: str, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.torch import load_file

    from learners.storage.consolidate import consolidate

    consolidate(ran / "step-10", Path(model), tmp_path / "folder", "float32", "ema")
    made, staged = load_file(tmp_path / "folder" / "model.safetensors"), np.fromfile(ran / "half.bin", np.uint8)
    specs = torch.load(ran / "staged.pt", weights_only=False)["manifest"].tensors
    assert made.keys() == {spec.name for spec in specs}
    for spec in specs:
        tensor = torch.from_numpy(staged[spec.offset : spec.end]).view(torch.float32).view(spec.shape)
        assert torch.equal(made[spec.name], tensor), spec.name


def test_a_checkpoint_that_lacks_a_ranks_file_is_refused(ran: Path, model: str, tmp_path: Path) -> None:
    import shutil

    from learners.storage.consolidate import consolidate
    from protocol.errors import UserError

    shutil.copytree(ran / "step-10", tmp_path / "step-10")
    (tmp_path / "step-10" / "rank-1.pt").unlink()
    with pytest.raises(UserError, match="cannot be read as a checkpoint of a model such as"):
        consolidate(tmp_path / "step-10", Path(model), tmp_path / "folder", "float32", "ema")
    assert not (tmp_path / "folder").exists()
