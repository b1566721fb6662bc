"""The small parts of a learner: schedule, model folders, packed weights, checkpoints on disk, the publisher."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from learners.storage import checkpoints
from learners.storage.models import check_model_folder
from learners.zero3.schedule import lr_at
from protocol.errors import UserError
from protocol.recipe import LearnerConfig, LoraConfig


def test_importing_the_group_is_light() -> None:
    code = (
        "import sys, learners.fit, learners.storage.models\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch','ray','vllm','deepspeed','transformers'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.strip() == "[]"


def test_no_learner_module_imports_vllm() -> None:
    assert not [
        p for p in Path("learners").rglob("*.py") if "import vllm" in p.read_text() or "from vllm" in p.read_text()
    ]


# -- schedule


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.5), (1, 1.0), (2, 1.0), (6, 0.6), (10, 0.2), (50, 0.2)],  # cos 0, pi/2, pi; beyond the end it stays
)
def test_warmup_then_half_a_cosine(step: int, rate: float) -> None:
    assert lr_at(step, lr=1.0, final_fraction=0.2, warmup_steps=2, steps=11) == pytest.approx(rate)


def test_a_schedule_advanced_twice_a_step_ends_half_way() -> None:
    rates = [
        lr_at(step, lr=1.0, final_fraction=0.2, warmup_steps=2, steps=11, advances_per_step=2) for step in range(11)
    ]
    assert rates[:6] == pytest.approx([0.5, 1.0, 0.8828427, 0.6, 0.3171573, 0.2])  # cosines of 0, pi/4, ... pi
    assert rates[6:] == [rates[5]] * 5


def test_a_run_of_one_step_learns_at_the_full_rate() -> None:
    assert lr_at(0, lr=3e-4, final_fraction=0.2, warmup_steps=0, steps=1) == 3e-4


# -- model folders


def whole_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")  # a header without tensors
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x"}))
    return folder


def test_a_whole_folder_passes_with_either_kind_of_template(tmp_path: Path) -> None:
    folder = whole_folder(tmp_path / "m")
    check_model_folder(str(folder), "models.attacker.path")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("x")
    check_model_folder(str(folder), "models.attacker.path")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights"),
        ("tokenizer.json", "no tokenizer"),
        ("tokenizer_config.json", "no chat template"),
    ],
)
def test_an_incomplete_folder_is_refused_in_one_line(tmp_path: Path, missing: str, said: str) -> None:
    folder = whole_folder(tmp_path / "m")
    (folder / missing).unlink()
    with pytest.raises(UserError) as refused:
        check_model_folder(str(folder), "models.attacker.path")
    assert str(refused.value).startswith(f"models.attacker.path: {folder} has {said}")
    assert "\n" not in str(refused.value)


def test_quantized_weights_are_refused_for_whom_learns(tmp_path: Path) -> None:
    folder = whole_folder(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "awq"}}))
    check_model_folder(str(folder), "models.attacker.path")
    with pytest.raises(
        UserError, match=r"models\.attacker\.path: \S+ is quantized .*; give the unquantized model, or set"
    ):
        check_model_folder(str(folder), "models.attacker.path", trained=True)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        check_model_folder(str(tmp_path / "nothing"), "models.defender.path")


# -- checkpoints


CONFIG = LearnerConfig()


def write_draft(root: Path, step: int, ranks: int = 2, config: LearnerConfig = CONFIG) -> None:
    folder = checkpoints.draft(root, step)
    folder.mkdir(parents=True)
    (folder / "rank-0.pt").write_text("x")
    checkpoints.write_meta(folder, step=step, version=step + 1, ranks=ranks, config=config)


def test_the_newest_two_stay_and_half_written_ones_go(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None
    for step in (5, 50, 100):
        write_draft(tmp_path, step)
        checkpoints.commit(tmp_path, step)
    write_draft(tmp_path, 150)
    assert checkpoints.newest(tmp_path) == tmp_path / "step-100"
    checkpoints.remove_old(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-100", "step-50"]
    assert checkpoints.read_meta(tmp_path / "step-100", CONFIG) == checkpoints.Saved(100, 101, ranks=2)


def test_steps_of_a_warm_start_are_older_than_any_step_of_the_run(tmp_path: Path) -> None:
    for warm in (9, 10, 8):
        folder = checkpoints.draft(tmp_path, 0, warm)
        folder.mkdir()
        checkpoints.write_meta(folder, step=0, version=0, ranks=2, config=CONFIG, warm=warm)
        checkpoints.commit(tmp_path, 0, warm)
    assert checkpoints.newest(tmp_path) == tmp_path / "warm-10"
    assert checkpoints.read_meta(tmp_path / "warm-10", CONFIG) == checkpoints.Saved(0, 0, 10, ranks=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["warm-10", "warm-9"]
    checkpoints.draft(tmp_path, 0, 12).mkdir()
    write_draft(tmp_path, 2)
    checkpoints.commit(tmp_path, 2)
    assert checkpoints.newest(tmp_path) == tmp_path / "step-2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-2", "warm-10"], "the half-written one is gone"


def test_a_checkpoint_says_how_many_ranks_wrote_it(tmp_path: Path) -> None:
    write_draft(tmp_path, 5, ranks=4)
    assert checkpoints.read_meta(checkpoints.draft(tmp_path, 5), CONFIG).ranks == 4


@pytest.mark.parametrize(("key", "value"), [("reference", "frozen"), ("sampler", "policy")])
def test_another_reference_or_sampler_is_refused_with_the_remedy(tmp_path: Path, key: str, value: str) -> None:
    write_draft(tmp_path, 5)
    other = CONFIG.model_copy(update={key: value})
    with pytest.raises(UserError, match=rf"with {key} ema, this one has {value}; set .*learners\.\*\.{key} to ema"):
        checkpoints.read_meta(checkpoints.draft(tmp_path, 5), other)


def test_other_adapters_are_refused_with_the_remedy(tmp_path: Path) -> None:
    adapted = CONFIG.model_copy(update={"lora": LoraConfig(rank=8, targets=("q_proj",))})
    write_draft(tmp_path, 5, config=adapted)
    folder = checkpoints.draft(tmp_path, 5)
    assert checkpoints.read_meta(folder, adapted) == checkpoints.Saved(5, 6, ranks=2)
    with pytest.raises(
        UserError, match=r'with lora {"rank": 8, .*}, this one has null; set .*learners\.\*\.lora to the first'
    ):
        checkpoints.read_meta(folder, CONFIG)
    wider = adapted.model_copy(update={"lora": LoraConfig(rank=16, targets=("q_proj",))})
    with pytest.raises(UserError, match=r'this one has {"rank": 16'):
        checkpoints.read_meta(folder, wider)
