"""What `evaluate` is asked to do, read and checked: suites, models, judge, labels. Starts nothing, makes nothing but a folder."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.inputs.find import FoundJudge, find_judge
from cluster.inputs.home import expand_home
from cluster.inputs.judge_digest import digest_model
from cluster.inputs.labels import Label, load_labels
from cluster.inputs.recipe_file import load_recipe
from cluster.inputs.suites.find import find_suites
from cluster.inputs.suites.suite import Suite
from cluster.inputs.target_endpoint import EndpointOptions, is_endpoint
from cluster.inputs.target_trial import try_target
from cluster.inputs.targets import (
    Manner,
    Target,
    find_checkpoints,
    find_run_dir,
    find_target,
    name_targets_apart,
    read_manner,
)
from cluster.measure.suites.utility import Utility, check_utility
from cluster.sandbox.world import find_task
from judge.identity import judge_id_of
from protocol.errors import UserError
from protocol.recipe import SANDBOX, Recipe
from protocol.types import Seed

TARGET, AGAINST = "TARGET", "--against"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of `evaluate`; see `cluster.cli.evaluate`."""

    target: str
    suites: tuple[str, ...]
    out: Path
    against: str | None = None
    checkpoints: bool = False
    judge: Path | None = None
    overrides: tuple[str, ...] = ()
    samples: int = 1
    limit: int | None = None
    labels: str | None = None
    sampling: Mapping[str, float | int | None] = field(default_factory=dict)
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    utility: Utility | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that an evaluation takes, checked.

    Attributes:
        targets: what is measured; the last one is `--against`, if `paired`.
        recipe: the judge's, with the length of the answers and a judge of single responses.
        with_harmfulness: whether the judge tells harmfulness apart from compliance.
        warnings: in words.
    """

    targets: tuple[Target, ...]
    paired: bool
    suites: tuple[Suite, ...]
    samples: int
    manner: Manner
    recipe: Recipe
    judge: FoundJudge
    with_harmfulness: bool
    labels: tuple[Label, ...]
    out: Path
    utility: Utility | None
    warnings: tuple[str, ...]

    @property
    def judge_id(self) -> str:
        """As verdicts name it."""
        return judge_id_of(self.recipe.judge, self.judge.digest)

    def about(self) -> dict[str, Any]:
        """What figures depend on: two evaluations that differ in it are never mixed."""
        labels = json.dumps([asdict(label) for label in self.labels])
        return {
            "models": [[target.name, target.identity] for target in self.targets],
            "suites": [[suite.name, suite.digest] for suite in self.suites],
            "samples": self.samples,
            "sampling": asdict(self.manner.sampling),
            "seed": self.manner.seed,
            "prompts": self.manner.prompts,
            "format": self.manner.format,
            "judge": self.judge_id,
            "rubrics": list(self.judge.rubrics),
            "judge_sampling": self.recipe.judge.sampling.model_dump(mode="json"),
            "labels": hashlib.blake2b(labels.encode(), digest_size=8).hexdigest() if self.labels else None,
        }


def read_evaluation(options: Options, say: Callable[[str], None]) -> Evaluation:
    """Checks the options; makes `--out`.

    Args:
        say: told before something takes long.

    Raises:
        UserError: a mistake in what is named.
    """
    if options.utility is not None:
        check_utility()
    _check_kinds(options)
    of_run = _first_run(options)
    if options.judge is None and of_run is None:
        raise UserError(
            "--judge: no judge; give a recipe whose judge section says who judges (a run's directory brings its own)"
        )
    judge_file = options.judge or (of_run or Path()) / "recipe.yaml"
    judging = load_recipe(judge_file, options.overrides)
    asking = judging if of_run is None else load_recipe(of_run / "recipe.yaml", options.overrides)
    manner = read_manner(asking, options.sampling)
    suites = tuple(find_suites(options.suites, options.limit))
    targets = tuple(name_targets_apart(_find_targets(options, asking)))
    for target in targets:
        against = options.against is not None and target is targets[-1]
        try_target(target, AGAINST if against else TARGET, suites, manner, say)
    labels = _read_labels(options.labels)
    recipe = _for_single_responses(judging, manner)
    judge = find_judge(recipe, say, seeds=[Seed(i.id, i.query, i.category) for suite in suites for i in suite.items])
    _check_judge(recipe, suites)
    return Evaluation(
        targets=targets,
        paired=options.against is not None,
        suites=suites,
        samples=options.samples,
        manner=manner,
        recipe=recipe,
        judge=judge,
        with_harmfulness=_tells_harmfulness(recipe, judge),
        labels=labels,
        out=_make_out(options.out),
        utility=options.utility,
        warnings=tuple(_warn(targets, recipe, judge, options.judge is None)),
    )


def _check_kinds(options: Options) -> None:
    if options.endpoint.leave_out and not any(is_endpoint(named or "") for named in (options.target, options.against)):
        raise UserError("--leave-out: only an address's requests can leave a parameter out; leave the option out")
    if options.checkpoints and options.against is not None:
        raise UserError("--against: --checkpoints compares a run's checkpoints already; leave one of the two out")
    if options.utility is not None:
        for named in (options.target, options.against):
            if named is not None and is_endpoint(named):
                raise UserError(
                    f"--utility: lm-eval is run on model folders here, and {named} is an address; leave it out"
                )


def _first_run(options: Options) -> Path | None:
    for named in (options.target, options.against):
        if named is not None and (run_dir := find_run_dir(named)) is not None:
            return run_dir.path
    return None


def _find_targets(options: Options, asking: Recipe) -> list[Target]:
    if options.checkpoints:
        return find_checkpoints(options.target, TARGET, asking)
    targets = [find_target(options.target, TARGET, asking, options.endpoint)]
    if options.against is not None:
        targets.append(find_target(options.against, AGAINST, asking, options.endpoint))
    return targets


def _read_labels(named: str | None) -> tuple[Label, ...]:
    if named is None:
        return ()
    labels = tuple(label for label in load_labels(named, "--labels") if label.form == "pointwise")
    if not labels:
        raise UserError(
            f"--labels: {named} has no label of a single response; a share is corrected with those, so add some of compliance "
            "(harmful) and refusal (benign)"
        )
    return labels


def _for_single_responses(recipe: Recipe, manner: Manner) -> Recipe:
    sampling = recipe.sampling.model_copy(update={"max_new_tokens": manner.sampling.max_new_tokens})
    judge = recipe.judge.model_copy(update={"form": "pointwise"})
    return recipe.model_copy(update={"sampling": sampling, "judge": judge})


def _check_judge(recipe: Recipe, suites: Sequence[Suite]) -> None:
    judge = recipe.judge
    if judge.kind == "none":
        raise UserError("judge.kind: none judges nothing; give --judge a recipe with another one")
    if judge.kind != "rules":
        return
    for suite in suites:
        foreign = sum(find_task(item.query) is None for item in suite.items)
        if foreign > judge.alarm.failure_rate * len(suite.items):
            raise UserError(
                f"judge.kind: rules knows the sandbox's world only, and {foreign} of the {len(suite.items)} prompts of "
                f"{suite.name} are not of it; give --judge a recipe with another judge"
            )


def _tells_harmfulness(recipe: Recipe, judge: FoundJudge) -> bool:
    return recipe.judge.kind == "rules" or any("/harmfulness.pointwise@" in name for name in judge.rubrics)


def _warn(targets: Sequence[Target], recipe: Recipe, judge: FoundJudge, own: bool) -> list[str]:
    """Where a model was trained by the judge that now measures it."""
    mine = judge_id_of(recipe.judge, judge.digest)
    taught = [t.name for t in targets if t.trained_by is not None and mine == _trainer_of(t.trained_by, judge)]
    if not taught:
        return []
    remedy = "give --judge a recipe with another one" if own else "name another one in the recipe of --judge"
    return [
        f"{', '.join(taught)}: trained with this very judge ({mine}), so the figures are what it was rewarded for and flatter it; "
        f"for a judge that it has not seen, {remedy}"
    ]


def _trainer_of(recipe: Recipe, found: FoundJudge) -> str:
    judge = recipe.judge
    if judge.kind != "lm":
        return judge_id_of(judge)
    folder = Path(judge.model).expanduser()
    if judge.model == SANDBOX and found.model is not None:
        folder = Path(found.model)  # there is one sandbox here, and so one judge of it
    return judge_id_of(judge, digest_model(folder) if folder.is_dir() else None)


def _make_out(out: Path) -> Path:
    path = expand_home(out, "--out").resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"--out: {out} cannot be made ({e.strerror}); name a folder that can") from None
    return path
