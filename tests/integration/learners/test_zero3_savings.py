"""What saves time or memory and must not move a number: the sampler as reference, offload to the CPU, activations computed again.

Two gloo ranks run once and leave files; the plain run of the same steps is `test_zero3`'s, checked there against one process.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from protocol.recipe import LearnerConfig
from protocol.rows import SCHEMA
from tests.integration.learners.ranks import CONFIG, QUIRKS, run_ranks, table
from tests.integration.learners.test_zero3_modes import load, scores
from tests.integration.tiny_qwen import VOCABULARY, save_tiny
from tests.numerics import GAP, GRPO_LOSS, LOGP, ROUNDING, TOKENS, steady_engine, threads

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow, pytest.mark.numerics]

STEPS = 3
PLAIN = CONFIG.model_copy(update={"clip": 1e6})
GRPO = PLAIN.model_copy(update={"loss": "grpo", "sampler": "policy"})
EPSILONS = {"dpo": 1e-2, "grpo": 0.1}  # Adam's: see `steady_engine`
SAME = {
    "offload_optimizer": {"offload": "optimizer"},
    "offload_all": {"offload": "all"},
    "recomputed": {"activation_checkpointing": True},
}


def sampled_tables(model: str) -> list[pa.Table]:
    """`test_zero3`'s batches as if the starting model had drawn them, on an engine without rounding of its own."""
    net, tables = load(model), []
    for step in range(STEPS):
        rows = table(step).to_pylist()
        for row in rows:
            for item in row["items"]:
                with torch.no_grad():
                    item["logprobs"] = scores(net, row["prompt_ids"], item["token_ids"]).tolist()
        tables.append(pa.Table.from_pylist(rows, schema=SCHEMA))
    return tables


# -- the ranks


def _counted(engine: Any) -> list[str]:
    """Names of the models that are called from now on, in turn."""
    calls: list[str] = []
    for name in ("policy", "reference"):
        wrapped = getattr(engine, f"_{name}")
        if wrapped is not None:
            wrapped.module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    return calls


def _stepped(model: str, config: LearnerConfig, tables: list[pa.Table], folder: Path) -> dict[str, Any]:
    """The steps, and the last again from a checkpoint before it."""
    from learners.batch.build import make_batch

    engine = steady_engine(model, config, STEPS, QUIRKS, EPSILONS[config.loss])
    batches = [make_batch(rows, config, QUIRKS, engine.rank, engine.world) for rows in tables]
    calls = _counted(engine)
    log = []
    for step, batch in enumerate(batches):
        if step == STEPS - 1:
            engine.save(folder)
        log.append(engine.step(batch, step))
    ran = list(calls)
    _, packed = engine.stage("float32", "defender", 1, STEPS)
    again = steady_engine(model, config, STEPS, QUIRKS, EPSILONS[config.loss])
    again.load(folder)
    again.step(batches[-1], STEPS - 1)
    _, packed_again = again.stage("float32", "defender", 1, STEPS)
    return {
        "log": log,
        "calls": {name: ran.count(name) for name in ("policy", "reference")},
        "forwards": sum(len(batch.micro) for batch in batches),
        "resumed": packed is None or packed_again is None or bool((packed == packed_again).all()),
        "kept": engine._average is not None,
        "held": engine._reference is not None,
    }


def _savings_run(rank: int, ranks: int, model: str, out: Path) -> None:
    with pa.memory_map(str(out / "tables.arrow")) as source:
        whole = pa.ipc.open_file(source)
        tables = [pa.Table.from_batches([whole.get_batch(k)]) for k in range(STEPS)]
    configs = {"plain": PLAIN} | {name: PLAIN.model_copy(update=update) for name, update in SAME.items()}
    configs["frozen"] = PLAIN.model_copy(update={"reference": "frozen"})
    configs["sampler"] = PLAIN.model_copy(update={"reference": "sampler"})
    configs["sampler_policy"] = PLAIN.model_copy(update={"reference": "sampler", "sampler": "policy"})
    configs["grpo_frozen"] = GRPO.model_copy(update={"reference": "frozen"})
    configs["grpo_sampler"] = GRPO.model_copy(update={"reference": "sampler"})
    log = {name: _stepped(model, config, tables, out / name) for name, config in configs.items()}
    (out / f"log-{rank}.json").write_text(json.dumps(log))


# -- what is asserted


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.set_num_threads(threads())
    out = tmp_path_factory.mktemp("savings")
    save_tiny(out / "model", seed=1)
    with pa.OSFile(str(out / "tables.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for rows in sampled_tables(str(out / "model")):
            writer.write_batch(rows.combine_chunks().to_batches()[0])
    run_ranks(_savings_run, str(out / "model"), out, timeout_s=300.0)
    found: dict[str, Any] = json.loads((out / "log-0.json").read_text())
    return found


def losses(one: dict[str, Any]) -> list[float]:
    return [metrics["loss"] for metrics in one["log"]]


@pytest.mark.parametrize("name", SAME)
def test_the_losses_are_the_plain_ones_and_a_checkpoint_goes_on_exactly(ran: dict[str, Any], name: str) -> None:
    assert losses(ran[name]) == pytest.approx(losses(ran["plain"]), abs=0.05 * GAP)  # beta / 2 steep
    assert max(abs(loss - losses(ran["plain"])[0]) for loss in losses(ran["plain"])) > 1e-3
    assert ran[name]["resumed"]


def test_the_sampler_as_reference_runs_no_second_forward_and_holds_no_second_model(ran: dict[str, Any]) -> None:
    forwards = ran["plain"]["forwards"]
    assert ran["plain"]["calls"] == {"policy": forwards, "reference": forwards}
    for name in ("sampler", "sampler_policy"):
        assert ran[name]["calls"] == {"policy": forwards, "reference": 0}
        assert not ran[name]["held"] and ran[name]["resumed"]
    assert ran["grpo_sampler"]["calls"]["reference"] == 0
    assert (ran["sampler"]["kept"], ran["sampler_policy"]["kept"]) == (True, False), "an average only where it samples"


def test_with_an_exact_sampler_the_first_step_is_that_of_a_models_reference(ran: dict[str, Any]) -> None:
    first = {name: ran[name]["log"][0] for name in ("plain", "frozen", "sampler", "sampler_policy")}
    for name in ("frozen", "sampler", "sampler_policy"):
        for key, bound in {"loss": 0.05 * GAP, "delta_chosen": 2 * TOKENS * LOGP, "margin": 0.1 * GAP}.items():
            assert first[name][key] == pytest.approx(first["plain"][key], abs=bound), (name, key)
        norm = first["plain"]["grad_norm"]  # half of beta times the gap's error, and the longest sum's rounding
        assert first[name]["grad_norm"] == pytest.approx(norm, rel=0.05 * GAP + VOCABULARY * ROUNDING)
    assert first["sampler"]["sampler_gap"] == pytest.approx(0, abs=2 * LOGP)
    assert ran["sampler"]["log"][-1]["sampler_gap"] > 1e-2, "the policy leaves what drew the batch"


@pytest.mark.parametrize(
    ("mine", "models", "bound"),
    [("sampler", "frozen", 0.05 * GAP), ("grpo_sampler", "grpo_frozen", GRPO_LOSS)],  # beta / 2 steep
)
def test_rows_of_the_starting_model_make_the_sampler_the_frozen_reference_at_every_step(
    ran: dict[str, Any], mine: str, models: str, bound: float
) -> None:
    assert losses(ran[mine]) == pytest.approx(losses(ran[models]), abs=bound)
    assert losses(ran["frozen"])[-1] != pytest.approx(losses(ran["plain"])[-1], abs=1e-4)
    kls = [[metrics["kl"] for metrics in ran[name]["log"]] for name in (mine, models)]
    assert [abs(kl) for kl in kls[0]] == pytest.approx([abs(kl) for kl in kls[1]], abs=2 * TOKENS * LOGP)
