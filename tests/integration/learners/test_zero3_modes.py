"""The other losses, references and samplers on two gloo ranks: IPO and GRPO steps against a plain-torch run in one process, what is
staged and exported in each mode, and checkpoints of each mode.

The ranks run once and leave files. The reference is written here from the equations, one sequence at a time, without padding.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from protocol.recipe import LearnerConfig, LoraConfig, QuirksConfig, SftConfig
from protocol.rows import SCHEMA, to_batch
from protocol.types import Completion, Group, Item
from tests.integration.learners.ranks import CONFIG as HEADLINE
from tests.integration.learners.ranks import QUIRKS, run_ranks, table
from tests.integration.tiny_qwen import END, VOCABULARY
from tests.numerics import GAP, GRPO_LOSS, LOGP, ROUNDING, steady_engine, threads, weights_apart

pytestmark = [pytest.mark.timeout(400), pytest.mark.numerics]

STEPS, SAVED = 3, 2
RATES = [1e-3, 0.6e-3, 0.2e-3]  # a cosine of three steps from 1e-3 to a fifth of it
DEMONSTRATIONS = [("w1- w2-", "w3- w4- w5-"), ("w7-", "w6-"), ("w1- w9-", "w8- w8-")]
COMMON = HEADLINE.model_copy(update={"warmup_steps": 0, "clip": 1e6})
IPO = COMMON.model_copy(update={"loss": "ipo", "reference": "frozen", "sampler": "ema", "nll": 0.5, "entropy": 2.0})
GRPO = COMMON.model_copy(
    update={"loss": "grpo", "reference": "frozen", "sampler": "policy", "max_tokens": 60, "ratio_cap": 1.5}
)
TRAILING = COMMON.model_copy(update={"reference": "ema", "sampler": "policy", "dtype": "bfloat16"})
# Adam's, well below the size of the gradients' elements and well above their rounding: see `steady_engine`.
EPSILONS = {"ipo": 1.0, "grpo": 0.1, "pairs": 1e-2}
# Fresh adapters are nothing, so the first loss is that of the starting model against what the rows say that they were drawn with.
SAMPLED = COMMON.model_copy(update={"reference": "sampler", "lora": LoraConfig(rank=4)})
# Advanced twice a step, five places are the three of `RATES`.
TWICE, PLACES = QuirksConfig(lr_schedule="paper"), 5


def with_demonstrations(config: LearnerConfig, out: Path) -> LearnerConfig:
    sft = SftConfig(path=str(out / "demonstrations.jsonl"), weight=0.3, batch=len(DEMONSTRATIONS))
    return config.model_copy(update={"sft": sft})


# -- the ranks


def _groups_of(out: Path, step: int) -> pa.Table:
    with pa.memory_map(str(out / f"groups-{step}.arrow")) as source:
        return pa.ipc.open_file(source).read_all()


def _stepped(engine: Any, tables: list[pa.Table], quirks: QuirksConfig, first: int = 0, mix: Any = None) -> list[Any]:
    from learners.batch.build import make_batch

    log = []
    for step, rows in enumerate(tables, first):
        batch = make_batch(rows, engine.config, quirks, engine.rank, engine.world)
        shown = None if mix is None else mix.batch(step, engine.rank, engine.world)
        log.append(engine.step(batch, step, shown) | {"forwards": len(batch.micro)})
    return log


def _staged(engine: Any, version: int, file: Path) -> None:
    manifest, packed = engine.stage("float32", "defender", version, engine.steps_done)
    if packed is not None:
        torch.save({"tensors": manifest.tensors, "bytes": torch.from_numpy(packed)}, file)


def _warmed(model: str, mix: Any, out: Path) -> dict[str, Any]:
    """A warm start, with a checkpoint in its middle, and what the average is after it."""
    from learners.zero3.shards import master_shards

    config = TRAILING.model_copy(update={"sft": SftConfig(warm_lr=1e-3)})
    engine = steady_engine(model, config, STEPS, QUIRKS, EPSILONS["pairs"])
    shares = [mix.batch(step, engine.rank, engine.world) for step in range(6)]
    nll = [engine.warm_step(share)["nll"] for share in shares[:4]]
    engine.save(out / "warm")
    rest = [engine.warm_step(share)["nll"] for share in shares[4:]]
    again = steady_engine(model, config, STEPS, QUIRKS, EPSILONS["pairs"])
    again.load(out / "warm")
    at = (again.steps_done, again.warm_done)
    same = [again.warm_step(share)["nll"] for share in shares[4:]]
    stood = any(not torch.equal(again._average.shards[n], s) for n, s in master_shards(again._policy).items())
    again.begin_game()
    follows = all(torch.equal(again._average.shards[n], s) for n, s in master_shards(again._policy).items())
    return {"nll": nll, "rest": rest, "same": same, "at": at, "stood": stood, "follows": follows}


def _masters(engine: Any) -> dict[str, torch.Tensor]:
    """The policy's whole fp32 weights, gathered by DeepSpeed."""
    from deepspeed.utils import safe_get_full_fp32_param

    return {name: safe_get_full_fp32_param(p).clone() for name, p in engine._policy.module.named_parameters()}


def _modes_run(rank: int, ranks: int, model: str, out: Path) -> None:
    from learners.batch.demonstrations import load_demonstrations
    from learners.spec import LearnerSpec
    from protocol.errors import UserError

    log: dict[str, Any] = {}
    config = with_demonstrations(IPO, out)
    mix = load_demonstrations(LearnerSpec("defender", model, config, STEPS, 0, str(out), "float32")).mix
    pairs = [table(step) for step in range(STEPS)]
    engine = steady_engine(model, config, STEPS, QUIRKS, EPSILONS["ipo"])
    log["ipo"] = _stepped(engine, pairs[:SAVED], QUIRKS, mix=mix)
    engine.save(out / "ipo")
    log["ipo"] += _stepped(engine, pairs[SAVED:], QUIRKS, SAVED, mix)
    _staged(engine, 3, out / "ipo.pt")
    again = steady_engine(model, config, STEPS, QUIRKS, EPSILONS["ipo"])
    again.load(out / "ipo")
    log["ipo_again"] = _stepped(again, pairs[SAVED:], QUIRKS, SAVED, mix)
    _staged(again, 3, out / "ipo-again.pt")
    log["untouched"] = _stepped(again, [SCHEMA.empty_table()], QUIRKS, STEPS, mix)
    torch.save(_masters(engine), out / f"before-{rank}.pt")
    torch.save(_masters(again), out / f"untouched-{rank}.pt")

    log["warm"] = _warmed(model, mix, out)

    groups = [_groups_of(out, step) for step in range(STEPS)]
    engine = steady_engine(model, GRPO, PLACES, TWICE, EPSILONS["grpo"])
    log["grpo"] = _stepped(engine, groups, TWICE)
    log["kept"] = [str(name) for name in ("_average",) if getattr(engine, name) is not None]
    _staged(engine, 3, out / "grpo.pt")
    engine.export(out / "export", "float32")
    torch.save(_masters(engine), out / f"grpo-masters-{rank}.pt")
    engine.save(out / "grpo")
    again = steady_engine(model, GRPO, PLACES, TWICE, EPSILONS["grpo"])
    try:
        again.load(out / "ipo")
    except UserError as error:
        log["said"] = str(error)
    again.load(out / "grpo")
    _staged(again, 3, out / "grpo-again.pt")

    engine = steady_engine(model, TRAILING, STEPS, QUIRKS, EPSILONS["pairs"])
    log["trailing"] = _stepped(engine, pairs, QUIRKS)
    _staged(engine, 3, out / "trailing.pt")
    torch.save(_masters(engine), out / f"trailing-masters-{rank}.pt")
    log["reference_follows"] = all(
        torch.equal(p.ds_tensor, engine._average.shards[name].bfloat16())
        for name, p in engine._reference.module.named_parameters()
    )

    engine = steady_engine(model, SAMPLED, STEPS, QUIRKS, EPSILONS["pairs"])
    log["sampled_models"] = [name for name in ("_policy", "_reference") if getattr(engine, name) is not None]
    log["sampled"] = _stepped(engine, pairs, QUIRKS)
    _staged(engine, 3, out / "sampled.pt")
    (out / f"log-{rank}.json").write_text(json.dumps(log))


# -- the reference


def load(model: str) -> Any:
    """In float64, so that what is left between it and a learner is the learner's rounding."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)


def distribution(net: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """log softmax (answer tokens, vocabulary), float64."""
    logits = net(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return logits.double().log_softmax(-1)


def scores(net: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    return distribution(net, prompt, answer)[range(len(answer)), answer]


def group_tables(model: str) -> list[pa.Table]:
    """Groups of 1 to 4 items drawn by something near the model: ratios on both sides of the cap, penalties, exclusions."""
    net, tables = load(model), []
    for step in range(STEPS):
        draw = np.random.default_rng(100 + step)
        groups = []
        for game in range(int(draw.integers(3, 6))):
            prompt = [int(t) for t in draw.integers(8, 200, draw.integers(3, 12))]
            items = []
            for k in range(int(draw.integers(1, 5)) if game else 4):
                ids = [int(t) for t in draw.integers(8, 200, draw.integers(2, 16))]
                with torch.no_grad():
                    sampled = scores(net, prompt, ids) - torch.from_numpy(draw.normal(0, 0.5, len(ids)))
                state, reward = (
                    [("too_long", -1.0), ("judge_failed", None)][k - 1] if k in (1, 2) else ("ok", 3.0 + game)
                )
                made = Completion.of(prompt, ids, sampled.tolist())
                items.append(Item(made, state, reward))
            groups.append(Group(game, "defender", 0, "s", "benign", tuple(items), (), (), 0))
        tables.append(pa.Table.from_batches([to_batch(groups)], schema=SCHEMA))
    return tables


class Plain:
    """A policy in one process: losses in, losses and gradient norms out, and its average."""

    def __init__(self, model: str, epsilon: float) -> None:
        self.policy, self.initial, self.ema = load(model), load(model), load(model)
        self._optimizer = torch.optim.AdamW(self.policy.parameters(), betas=(0.9, 0.95), eps=epsilon, weight_decay=0.1)
        self.norms: list[float] = []

    def step(self, loss: torch.Tensor) -> None:
        self._optimizer.param_groups[0]["lr"] = RATES[len(self.norms)]
        self._optimizer.zero_grad()
        loss.backward()
        self.norms.append(float(torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1e9)))
        self._optimizer.step()
        with torch.no_grad():
            for kept, new in zip(self.ema.parameters(), self.policy.parameters(), strict=True):
                kept.copy_(0.95 * kept + 0.05 * new)


def plain_ipo(model: str) -> tuple[Plain, list[dict[str, float]]]:
    from transformers import AutoTokenizer

    tokenizer, run, log = AutoTokenizer.from_pretrained(model), Plain(model, EPSILONS["ipo"]), []

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    for step in range(STEPS):
        terms: dict[str, list[torch.Tensor]] = {"loss": [], "nll": [], "entropy": []}
        for row in table(step).to_pylist():
            if row["preferences"][0]["winner"] is None:
                continue
            bad, good = sorted(row["items"], key=lambda item: item["reward"])
            cut = len(good["token_ids"]) if bad["state"] == "too_long" else None
            delta = []
            for ids in (good["token_ids"], bad["token_ids"][:cut]):
                full = distribution(run.policy, row["prompt_ids"], ids)
                with torch.no_grad():
                    reference = scores(run.initial, row["prompt_ids"], ids)
                delta.append((full[range(len(ids)), ids] - reference).sum())
                terms["entropy"].append(-(full.exp() * full).sum(-1).mean())
                if ids is good["token_ids"]:
                    terms["nll"].append(-full[range(len(ids)), ids].mean())
            terms["loss"].append((delta[0] - delta[1] - 1 / (2 * 0.1)) ** 2)
        means = {name: torch.stack(values).mean() for name, values in terms.items()}
        shown = [
            scores(run.policy, tokens(f"<|im_start|>user {q}{END}<|im_start|>assistant"), tokens(f" {a}{END}"))
            for q, a in DEMONSTRATIONS
        ]
        means["sft_nll"] = -torch.cat(shown).mean()
        run.step(means["loss"] + 0.5 * means["nll"] - 2.0 * means["entropy"] + 0.3 * means["sft_nll"])
        log.append({name: float(value.detach()) for name, value in means.items()})
    return run, log


def plain_grpo(model: str, tables: list[pa.Table]) -> tuple[Plain, list[float]]:
    run, losses = Plain(model, EPSILONS["grpo"]), []
    for rows in tables:
        groups = []
        for row in rows.to_pylist():
            items = [item for item in row["items"] if item["reward"] is not None]
            baseline = sum(item["reward"] for item in items) / len(items)
            losses_of_group = []
            for item in items:
                ids = item["token_ids"]
                logp = scores(run.policy, row["prompt_ids"], ids)
                with torch.no_grad():
                    reference = scores(run.initial, row["prompt_ids"], ids)
                    ratio = (logp - torch.tensor(item["logprobs"])).exp().clamp(max=1.5)
                kl = (reference - logp).exp() - (reference - logp) - 1
                losses_of_group.append((-ratio * (item["reward"] - baseline) * logp + 0.1 * kl).sum())
            groups.append(torch.stack(losses_of_group).mean())
        loss = torch.stack(groups).mean()
        run.step(loss)
        losses.append(float(loss.detach()))
    return run, losses


# -- what is asserted


@pytest.fixture(scope="module")
def tables(model: str) -> list[pa.Table]:
    torch.set_num_threads(threads())
    return group_tables(model)


@pytest.fixture(scope="module")
def ran(model: str, tables: list[pa.Table], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("modes")
    (out / "demonstrations.jsonl").write_text(
        "\n".join(json.dumps({"prompt": prompt, "response": response}) for prompt, response in DEMONSTRATIONS)
    )
    for step, rows in enumerate(tables):
        with pa.OSFile(str(out / f"groups-{step}.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            writer.write_table(rows)
    run_ranks(_modes_run, model, out)
    return out


def log(ran: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((ran / f"log-{rank}.json").read_text())


def staged(ran: Path, name: str) -> dict[str, torch.Tensor]:
    found = torch.load(ran / f"{name}.pt", weights_only=False)
    return {
        t.name: found["bytes"][t.offset : t.offset + t.nbytes].view(torch.float32).view(t.shape)
        for t in found["tensors"]
    }


def assert_same_weights(ours: dict[str, torch.Tensor], theirs: Any, norms: list[float], epsilon: float) -> None:
    plain = {name: p.detach() for name, p in theirs.named_parameters()}
    assert list(ours) == list(plain)
    assert max(float(tensor.abs().max()) for tensor in ours.values()) < 1.01
    apart = max(float((ours[name] - plain[name]).abs().max()) for name in ours)
    assert apart < weights_apart(RATES, max(norms), epsilon)


def test_ipo_steps_are_those_of_one_process(ran: Path, model: str) -> None:
    run, wanted = plain_ipo(model)
    found = log(ran)["ipo"]
    for name in ("nll", "entropy", "sft_nll"):  # means of log-probabilities
        assert [m[name] for m in found] == pytest.approx([m[name] for m in wanted], abs=LOGP), name
    # The square of a gap's distance from 5 is twice that distance steep: about 10.
    assert [m["loss"] for m in found] == pytest.approx([m["loss"] for m in wanted], abs=10 * GAP)
    # What the gap is off by, relative to 5, and the longest sum's rounding.
    assert [m["grad_norm"] for m in found] == pytest.approx(run.norms, rel=GAP / 5 + VOCABULARY * ROUNDING)
    assert [m["lr"] for m in found] == pytest.approx(RATES)
    assert abs(wanted[-1]["loss"] - 25) > 0.1, "a policy on its reference has the loss 25"
    assert_same_weights(staged(ran, "ipo"), run.ema, run.norms, EPSILONS["ipo"])


def test_grpo_steps_are_those_of_one_process(ran: Path, model: str, tables: list[pa.Table]) -> None:
    run, losses = plain_grpo(model, tables)
    found = log(ran)["grpo"]
    assert [m["loss"] for m in found] == pytest.approx(losses, abs=GRPO_LOSS)
    assert [m["grad_norm"] for m in found] == pytest.approx(run.norms, rel=VOCABULARY * ROUNDING)  # the longest sum's
    assert [m["lr"] for m in found] == pytest.approx(RATES), "the schedule is advanced twice a step"
    assert_same_weights(staged(ran, "grpo"), run.policy, run.norms, EPSILONS["grpo"])
    assert all(m["forwards"] > 1 and 0 < m["ratio_capped"] < 1 < m["ratio_mean"] * 1.5 for m in found)
    assert found[0]["kl"] == pytest.approx(0, abs=1e-6) and found[-1]["kl"] > 1e-4


def test_all_ranks_report_the_same_means(ran: Path) -> None:
    first, second = log(ran), log(ran, 1)
    for name in ("ipo", "grpo", "trailing"):
        for mine, theirs in zip(first[name], second[name], strict=True):
            assert mine | {"seconds": 0} == theirs | {"seconds": 0}


def test_a_policy_that_plays_itself_is_what_is_staged_and_exported(ran: Path) -> None:
    from safetensors.torch import load_file

    masters, exported = torch.load(ran / "grpo-masters-0.pt"), load_file(ran / "export" / "model.safetensors")
    for name, tensor in staged(ran, "grpo").items():
        assert torch.equal(tensor, masters[name]) and torch.equal(tensor, exported[name])
    assert log(ran)["kept"] == [], "nobody reads an average: none is kept"


def test_a_policy_behind_which_the_reference_trails_is_staged_in_full_precision(ran: Path) -> None:
    masters = torch.load(ran / "trailing-masters-1.pt")
    ours = staged(ran, "trailing")
    assert all(torch.equal(ours[name], masters[name]) for name in masters)
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in ours.values())
    assert log(ran)["reference_follows"]


@pytest.mark.parametrize("name", ["ipo", "grpo"])
def test_a_checkpoint_of_each_mode_goes_on_exactly(ran: Path, name: str) -> None:
    ours, again = staged(ran, name), staged(ran, f"{name}-again")
    assert all(torch.equal(ours[tensor], again[tensor]) for tensor in ours)
    found = log(ran)
    without = {"seconds", "forwards"}
    (resumed,) = found["ipo_again"]
    assert {k: v for k, v in resumed.items() if k not in without} == {
        k: v for k, v in found["ipo"][SAVED].items() if k not in without
    }


def test_a_checkpoint_of_another_mode_is_refused_in_words(ran: Path) -> None:
    assert "written by a learner with sampler ema, this one has policy" in log(ran)["said"]
    assert "sampler to ema to resume" in log(ran)["said"]


def test_a_warm_start_learns_resumes_exactly_and_the_average_begins_where_it_ends(ran: Path) -> None:
    for rank in range(2):
        warm = json.loads((ran / f"log-{rank}.json").read_text())["warm"]
        assert warm["nll"][-1] < warm["nll"][0] and warm["at"] == [0, 4]
        assert warm["rest"] == warm["same"], "the checkpoint goes on exactly"
        assert warm["stood"] and warm["follows"]


def test_a_step_without_rows_shows_no_demonstrations(ran: Path) -> None:
    (step,) = log(ran)["untouched"]
    assert (step["pairs"], step["grad_norm"]) == (0, 0) and "sft_nll" not in step
    before, after = torch.load(ran / "before-0.pt"), torch.load(ran / "untouched-0.pt")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_adapters_learn_against_the_samplers_log_probabilities_without_a_second_model(ran: Path, model: str) -> None:
    net, terms = load(model), []
    for row in table(0).to_pylist():
        if row["preferences"][0]["winner"] is not None:
            bad, good = sorted(row["items"], key=lambda item: item["reward"])
            cut = len(good["token_ids"]) if bad["state"] == "too_long" else None
            pair = (good["token_ids"], bad["token_ids"][:cut])
            # The rows claim log-probabilities of -1.
            won, lost = (float((scores(net, row["prompt_ids"], ids) + 1).sum().detach()) for ids in pair)
            terms.append(float(np.log1p(np.exp(-0.1 * (won - lost)))))
    found = log(ran)
    assert found["sampled_models"] == ["_policy"]
    assert found["sampled"][0]["loss"] == pytest.approx(
        np.mean(terms), abs=0.1 * GAP
    )  # a pair's loss is below beta steep
    assert found["sampled"][-1]["grad_norm"] > 0 and found["sampled"][0]["sampler_gap"] > 1
    start, ours = dict(net.named_parameters()), staged(ran, "sampled")
    assert list(ours) == list(start)
    moved = {name.split(".")[-2] for name in start if not torch.equal(ours[name].double(), start[name].detach())}
    assert moved == set(SAMPLED.lora.targets if SAMPLED.lora else ())


def test_the_checkpoint_of_a_policy_that_plays_itself_is_made_its_export(ran: Path, model: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from learners.storage.consolidate import consolidate

    consolidate(ran / "grpo", Path(model), tmp_path / "folder", "float32", "policy")
    made, exported = (load_file(f / "model.safetensors") for f in (tmp_path / "folder", ran / "export"))
    assert made.keys() == exported.keys() and all(torch.equal(made[name], exported[name]) for name in made)
