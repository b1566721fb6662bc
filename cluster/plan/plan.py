"""The `Plan`: everything that can be decided before anything of a run starts. Pure; `make_plan` is the way from a recipe to it.

    recipe file ──► Recipe ──► Plan ──► Run
                  inputs      plan      run

After it nobody reads the whole recipe again: each part of a run is built from its own share of the plan. `drawing` shows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.inputs.copies import files_to_copy
from cluster.inputs.find import Inputs
from cluster.inputs.recipe_file import dump_recipe, with_absolute_paths
from cluster.inputs.request import Request
from cluster.plan.demand import BYTES, Demand, Models, demand_of
from cluster.plan.heldout import HeldoutPlan, plan_heldout
from cluster.plan.placement import Placement, place
from cluster.plan.replay import ReplayPlan, plan_replay
from cluster.plan.sinks import SinksPlan, plan_sinks
from cluster.plan.transports import transports_of
from cluster.rundir import RunDir
from judge.identity import judge_id_of
from learners.spec import LearnerSpec
from protocol.format_examples import Demonstration, make_examples
from protocol.recipe import (
    GenerationConfig,
    HealthConfig,
    JudgeConfig,
    LogStyle,
    PromotionConfig,
    PushConfig,
    Recipe,
    RouterConfig,
    Transport,
)
from protocol.roles import PLAYERS, Player
from protocol.rules import GameRules


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """How the judge is asked.

    Attributes:
        judge_id: how it is named in verdicts.
        key: judge and rubrics, for the memory of verdicts: another judge or an edited rubric is another key.
        admits: calls that its workers pass on at once; None: any number.
    """

    config: JudgeConfig
    judge_id: str
    key: str
    admits: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module's docstring.

    Attributes:
        resumed: the run is there and goes on.
        recipe_yaml: the resolved recipe, as the run directory keeps it.
        changes: of a resumed run's recipe, `key=value`.
        files: by their keys, that a new run copies into its directory.
        steps: optimizer steps of each learner.
        stall_s: seconds without movement that end the run.
        grace_s: seconds that a run which ends early waits for its learners' checkpoints.
        placement_s: seconds that room on the cluster is waited for.
        barren_steps: steps of a player in a row without a row that end the run; None: never.
        skipped_steps: of a player in a row whose gradient was not finite, which end the run; None: never.
        transports: of the players that learn.
        shares: of each rollout worker in turn: how many games it plays at once.
        push_periods: of each player's generation workers in turn: which versions it takes.
        template_arguments: of each player's chat template.
        learners: of the players that learn.
        promotion: None: no gate.
        logs: how log lines look.
        metrics: whether there are series at Ray's endpoint.
        games_to_read: in `games.md`, at the end.
    """

    name: str
    seed: int
    steps: int
    trained: tuple[Player, ...]
    stall_s: float
    grace_s: float
    placement_s: float
    barren_steps: int | None
    skipped_steps: int | None
    run_dir: RunDir
    resumed: bool
    recipe_yaml: str
    changes: tuple[str, ...]
    files: Mapping[str, Path]
    inputs: Inputs
    placement: Placement
    demand: Demand
    transports: Mapping[Player, Transport]
    rules: GameRules
    shares: tuple[int, ...]
    router: RouterConfig
    health: HealthConfig
    replay: ReplayPlan
    generation: GenerationConfig
    judge: JudgePlan
    push: PushConfig
    push_periods: tuple[int, ...]
    template_arguments: Mapping[Player, Mapping[str, Any]]
    learners: Mapping[Player, LearnerSpec]
    heldout: HeldoutPlan
    sinks: SinksPlan
    promotion: PromotionConfig | None
    logs: LogStyle
    metrics: bool
    games_to_read: int

    @property
    def warm(self) -> tuple[Player, ...]:
        """The players with a warm start."""
        return tuple(player for player, spec in self.learners.items() if spec.config.sft.warm_steps)


def make_plan(request: Request) -> Plan:
    """Decides everything. A request was checked, so nothing is refused here."""
    recipe, inputs, run_dir = request.recipe, request.inputs, request.run_dir
    placement = place(recipe)
    return Plan(
        name=str(recipe.run.name),
        seed=recipe.run.seed,
        steps=recipe.run.steps,
        trained=recipe.trained,
        stall_s=recipe.run.stall_s,
        grace_s=recipe.run.grace_s,
        placement_s=recipe.run.placement_s,
        barren_steps=recipe.run.barren_steps,
        skipped_steps=recipe.run.skipped_steps,
        run_dir=run_dir,
        resumed=request.resumed,
        recipe_yaml=dump_recipe(with_absolute_paths(recipe)),
        changes=request.changes,
        files=files_to_copy(recipe),
        inputs=inputs,
        placement=placement,
        demand=demand_of(recipe, placement, plan_models(recipe, inputs)),
        transports=transports_of(recipe),
        rules=GameRules.of(recipe),
        shares=share_games(recipe.game.in_flight, recipe.rollout.workers),
        router=recipe.router,
        health=recipe.health,
        replay=plan_replay(recipe),
        generation=recipe.generation,
        judge=plan_judge(recipe.judge, inputs),
        push=recipe.push,
        push_periods=recipe.push_periods,
        template_arguments={p: recipe.models.of(p).template_arguments for p in PLAYERS},
        learners={player: plan_learner(recipe, player, inputs, run_dir) for player in recipe.trained},
        heldout=plan_heldout(recipe),
        sinks=plan_sinks(recipe),
        promotion=recipe.promotion,
        logs=recipe.observe.logs,
        metrics=recipe.observe.metrics,
        games_to_read=recipe.observe.games,
    )


def share_games(games: int, workers: int) -> tuple[int, ...]:
    """Splits games over workers as evenly as it goes."""
    return tuple(games // workers + (k < games % workers) for k in range(workers))


def plan_judge(judge: JudgeConfig, inputs: Inputs) -> JudgePlan:
    """How the run's judge is asked."""
    judge_id = judge_id_of(judge, inputs.judge_digest)
    admits = judge.api.concurrency if judge.kind == "api" else None
    return JudgePlan(judge, judge_id, " ".join([judge_id, *inputs.rubrics]), admits)


def plan_learner(recipe: Recipe, player: Player, inputs: Inputs, run_dir: RunDir) -> LearnerSpec:
    """What one learner group is started with."""
    return LearnerSpec(
        player=player,
        model_path=inputs.models[player],
        config=recipe.learners.of(player),
        steps=recipe.run.steps,
        run_seed=recipe.run.seed,
        run_dir=str(run_dir.path),
        push_dtype=choose_push_dtype(recipe, player, inputs),
        push_every=recipe.push.every,
        quirks=recipe.quirks,
        settle_every=settle_every(recipe),
        stage_mib=recipe.push.stage_mib,
        stage_s=recipe.push.deadlines.stage_s,
        placement_s=recipe.run.placement_s,
        template_arguments=recipe.models.of(player).template_arguments,
        warm=plan_warm_start(recipe, player, inputs),
    )


def choose_push_dtype(recipe: Recipe, player: Player, inputs: Inputs) -> str:
    """What a player's versions travel as: "float32" or "bfloat16"."""
    wanted = recipe.generation.dtype if recipe.push.dtype == "auto" else recipe.push.dtype
    return inputs.dtypes[player] if wanted == "auto" else wanted


def plan_models(recipe: Recipe, inputs: Inputs) -> Models:
    """How large the models are, as far as their folders were measured."""
    sizes = inputs.weight_bytes
    measured = {player: folder for player, folder in inputs.models.items() if folder in sizes}
    return Models(
        {player: sizes[folder] / BYTES[inputs.dtypes[player]] for player, folder in measured.items()},
        {player: BYTES[choose_push_dtype(recipe, player, inputs)] for player in measured},
        sizes.get(inputs.judge_model or "", 0),
    )


def plan_warm_start(recipe: Recipe, player: Player, inputs: Inputs) -> tuple[Demonstration, ...]:
    """Examples of the Attacker's format, as many as its warm start sees; none where it has none or a file of its own."""
    sft, game = recipe.learners.of(player).sft, recipe.game
    if not sft.warm_steps or sft.path is not None:
        return ()
    return make_examples(inputs.train, sft.warm_steps * sft.batch, game.prompts, game.attacker_format, recipe.run.seed)


def settle_every(recipe: Recipe) -> int:
    """Steps after which a learner waits until its version is served; 0: it never does.

    At staleness 0 every step: games that start while the push is under way are stale before they end. With turns at the end of
    each: the next player learns against the opponent as it stands now.
    """
    return 1 if recipe.replay.max_staleness == 0 else recipe.learners.alternate_every or 0
