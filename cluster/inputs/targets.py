"""The models that `evaluate` is given, found and checked before anything starts: a model folder, a run's directory, an endpoint.

A target says all that asking it takes. How it is sampled and what is put around a prompt is the same for all targets of an
evaluation: that of the first run among them, else that of the judge's recipe.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cluster.inputs.context_length import length_of
from cluster.inputs.home import expand_home
from cluster.inputs.judge_digest import digest_model
from cluster.inputs.recipe_file import load_recipe
from cluster.inputs.target_endpoint import EndpointOptions, is_endpoint, read_endpoint
from cluster.rundir import RunDir
from learners.storage.models import check_model_folder, read_config
from protocol.errors import UserError
from protocol.prompts import PromptSet
from protocol.recipe import SANDBOX, ApiConfig, EngineConfig, Recipe
from protocol.types import Sampling

KEY_PLAYER: Literal["defender"] = "defender"  # whose answers are measured


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A learner's checkpoint, of which a model folder is made when its turn comes.

    Attributes:
        folder: `step-N`.
        base: the model that its run started from.
        dtype: of the folder's weights.
        sampler: the run's `learners.defender.sampler`.
    """

    folder: Path
    base: Path
    dtype: str
    sampler: str


@dataclass(frozen=True, slots=True)
class Target:
    """One model.

    Attributes:
        name: in tables; unique in an evaluation.
        identity: what it is, so that an answer of it can be told from another model's: a digest, or address and model.
        folder: of the weights; None for an endpoint, and for a checkpoint before its turn.
        engine: for a folder or a checkpoint.
        api: for an endpoint.
        left_out: parameters that an endpoint is not sent, as in `JudgeSamplingConfig.left_out`.
        template_arguments: of a folder's chat template.
        checkpoint: see there.
        trained_by: the recipe of the run that it came from; None if it is of none.
    """

    name: str
    identity: str
    folder: Path | None = None
    engine: EngineConfig | None = None
    api: ApiConfig | None = None
    left_out: frozenset[str] = frozenset()
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    trained_by: Recipe | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Manner:
    """How every model of an evaluation is asked.

    Attributes:
        prompts, format: what stands around a prompt, and which part of an answer is the visible one.
        deadline_s: for one answer of an engine.
        seed: every sample's seed derives from it.
    """

    prompts: PromptSet
    format: str
    sampling: Sampling
    deadline_s: float
    seed: int


def find_run_dir(named: str) -> RunDir | None:
    """The run's directory that a target names; None if it is none."""
    if is_endpoint(named):
        return None
    run_dir = RunDir(expand_home(named).resolve())
    return run_dir if run_dir.recipe.is_file() else None


def read_manner(recipe: Recipe, overrides: Mapping[str, float | int | None]) -> Manner:
    """How a recipe's Defender is asked in its held-out measurements.

    Args:
        overrides: of `temperature`, `top_p`, `max_new_tokens`; None leaves the recipe's.
    """
    held, sampling = recipe.heldout, recipe.sampling
    own = Sampling(held.temperature, held.top_p, sampling.max_new_tokens, sampling.seeded)
    given = {name: value for name, value in overrides.items() if value is not None}
    return Manner(
        prompts=recipe.game.prompts,
        format=recipe.game.defender_format,
        sampling=replace(own, **given),  # type: ignore[arg-type]
        deadline_s=recipe.generation.deadline_s,
        seed=recipe.run.seed,
    )


def find_target(named: str, where: str, recipe: Recipe | None, options: EndpointOptions) -> Target:
    """One target.

    Args:
        named: as on the command line.
        where: the argument that named it, for messages.
        recipe: for the engine; None: the run's own, and vLLM's usual settings for a folder.
        options: for an endpoint.

    Raises:
        UserError: it is none of the three, or cannot be used.
    """
    if is_endpoint(named):
        api, left_out = read_endpoint(named, where, options)
        without = f" without {', '.join(sorted(left_out))}" if left_out else ""
        name = api.model or ""
        return Target(name, f"endpoint {api.base_url} {name}{without}", api=api, left_out=left_out)
    run_dir = find_run_dir(named)
    if run_dir is not None:
        return _of_run(run_dir, where, recipe)
    path = expand_home(named, where).resolve()
    if not path.is_dir():
        raise UserError(
            f"{where}: {named} is neither a model folder nor a run's directory nor an address; give one of them "
            "(an address as in http://localhost:8000/v1#MODEL)"
        )
    return _of_folder(path.name, path, where, recipe)


def find_checkpoints(named: str, where: str, asking: Recipe | None = None) -> list[Target]:
    """The model that a run started from, each checkpoint of its Defender, and its export if there is one.

    Args:
        named, where: as `find_target`.
        asking: for the engine; None: the run's own recipe.

    Raises:
        UserError: it is no run, or one without a checkpoint.
    """
    run_dir = find_run_dir(named)
    if run_dir is None:
        raise UserError(f"--checkpoints: {named} is no run's directory (it has no recipe.yaml); give one under runs/")
    recipe = load_recipe(run_dir.recipe)
    name, base = run_dir.path.name, _start_of(recipe)
    steps = sorted(
        (int(folder.name.removeprefix("step-")), folder)
        for folder in run_dir.checkpoints(KEY_PLAYER).glob("step-*[0-9]")
        if (folder / "checkpoint.json").is_file()
    )
    if not steps:
        raise UserError(f"--checkpoints: {run_dir.path} has no checkpoint of the Defender yet; wait for the first one")
    targets = [_of_folder(f"{name}:start", base, where, asking or recipe, recipe)]
    for step, folder in steps:
        kept = Checkpoint(folder, base, _dtype_of(base), recipe.learners.of(KEY_PLAYER).sampler)
        identity = f"checkpoint {name} step {step} {(folder / 'checkpoint.json').read_text(encoding='utf-8').strip()}"
        targets.append(replace(targets[0], name=f"{name}:step-{step}", identity=identity, folder=None, checkpoint=kept))
    if run_dir.export(KEY_PLAYER).is_dir():
        exported = _of_run(run_dir, where, asking)
        targets.append(replace(exported, name=f"{name}:export"))
    return targets


def name_targets_apart(targets: Sequence[Target]) -> list[Target]:
    """The same targets with names of their own: the second of a name is NAME-2."""
    seen: dict[str, int] = {}
    named = []
    for target in targets:
        seen[target.name] = seen.get(target.name, 0) + 1
        count = seen[target.name]
        named.append(target if count == 1 else replace(target, name=f"{target.name}-{count}"))
    return named


def _of_folder(name: str, path: Path, where: str, recipe: Recipe | None, own: Recipe | None = None) -> Target:
    """A folder, as `recipe` asks it. `own` is the recipe of the run that it came from: its template was written so in training."""
    check_model_folder(str(path), where)
    engine = EngineConfig() if recipe is None else _engine_of(recipe)
    limit = length_of(read_config(path, where))
    if limit is not None and limit < engine.max_model_len:
        engine = engine.model_copy(update={"max_model_len": limit})
    writes = own or recipe
    arguments = {} if writes is None else writes.models.of(KEY_PLAYER).template_arguments
    # Other arguments are other prompts. Without any nothing is named, so that what was begun before can go on.
    told = f" template arguments {json.dumps(arguments, sort_keys=True)}" if arguments else ""
    identity = f"folder {name} {digest_model(path)}{told}"
    return Target(name, identity, path, engine, template_arguments=arguments, trained_by=own)


def _of_run(run_dir: RunDir, where: str, asking: Recipe | None) -> Target:
    recipe = load_recipe(run_dir.recipe)
    trained = KEY_PLAYER in recipe.trained
    folder = run_dir.export(KEY_PLAYER) if trained else _start_of(recipe)
    if trained and not folder.is_dir():
        raise UserError(
            f"{where}: {run_dir.path} has no export of the Defender yet (status {run_dir.read_summary().get('status')}); "
            "resume it to its end, or give --checkpoints"
        )
    return _of_folder(run_dir.path.name, folder, where, asking or recipe, recipe)


def _start_of(recipe: Recipe) -> Path:
    """The model that the run's Defender started from."""
    path = recipe.models.defender.path
    if path == SANDBOX:
        from cluster.sandbox import ensure_sandbox

        return ensure_sandbox().defender
    return Path(path).expanduser().resolve()


def _engine_of(recipe: Recipe) -> EngineConfig:
    return EngineConfig(**{name: getattr(recipe.generation, name) for name in EngineConfig.model_fields})


def _dtype_of(base: Path) -> str:
    from cluster.inputs.find import own_dtype

    return own_dtype(str(base))
