"""Checks across fields: settings that are each within their range and contradict each other.

Each check gives sentences for people: key, value, why it cannot work, remedy. Whether files and endpoints exist is not checked
here.
"""

from collections.abc import Callable, Iterator

from protocol.recipe.engines import SET_HERE, EngineConfig
from protocol.recipe.models import template_arguments, warm_start
from protocol.recipe.schema import RecipeFields
from protocol.recipe.teaching import untaught
from protocol.recipe.transport import hindrance_of
from protocol.roles import PLAYERS


def contradictions(recipe: RecipeFields) -> Iterator[str]:
    """Every contradiction in a recipe whose fields are valid one by one."""
    for check in _CHECKS:
        yield from check(recipe)


# Tokens around an attack in the Defender's prompt: the turns of a chat template with its own system text take up to 80, our longest
# instruction 35; the rest is for tokenizers that differ between the players. In the Attacker's prompt a seed has the attack's
# place, beside an instruction of 160 (brief: 70). In the sandbox a word is a token: four of turns, and an instruction of three.
AROUND_AN_ATTACK = {"standard": 256, "brief": 192, "sandbox": 32}


def _lengths(r: RecipeFields) -> Iterator[str]:
    """The judge's context is checked with its own tokenizer (`cluster.inputs.judge_context`), because its rubrics are files."""
    new, limit, around = r.sampling.max_new_tokens, r.generation.max_model_len, AROUND_AN_ATTACK[r.game.prompts]
    if 2 * new + around > limit:
        most = (limit - around) // 2
        lower = f", or sampling.max_new_tokens to at most {most}" if most > 0 else ""
        yield (
            f"generation.max_model_len: {limit} is below the {2 * new + around} tokens that an attack of "
            f"sampling.max_new_tokens {new}, {around} around it and an answer of {new} may take; "
            f"set generation.max_model_len to at least {2 * new + around}{lower}"
        )


def _deadlines(r: RecipeFields) -> Iterator[str]:
    """An ask waits for any worker that is ready; a player's only worker is not while its engine starts anew."""
    g = r.generation
    if g.workers == 1 and g.deadline_s < g.start_deadline_s:
        yield (
            f"generation.deadline_s: {g.deadline_s:g} is below generation.start_deadline_s {g.start_deadline_s:g}, so a restart of "
            "a player's only worker may lose every game in flight; raise the first, lower the second, or set "
            "generation.workers to at least 2"
        )


def _engines(r: RecipeFields) -> Iterator[str]:
    """Whether vLLM knows a name and takes its value is checked where vLLM is (`cluster.inputs.engine_options`)."""
    engines: list[tuple[str, EngineConfig]] = [("generation", r.generation), ("judge.engine", r.judge.engine)]
    for key, engine in engines:
        for name in engine.vllm:
            if name in SET_HERE:
                yield f"{key}.vllm.{name}: is set by {SET_HERE[name]}; remove it"
    for name, wanted in (
        ("quantization", r.generation.quantization),
        ("vllm.quantization_config", r.generation.vllm.get("quantization_config")),
    ):
        if wanted is not None:
            yield (
                f"generation.{name}: {wanted} cannot be held by players, whose weights are pushed unquantized while they serve; "
                "set it to null (a judge's engine can be quantized)"
            )
    if "hf_overrides" in r.generation.vllm:
        yield (
            "generation.vllm.hf_overrides: would change the engine's model and not the learner's; write it into the config.json "
            "of the model's folder"
        )


def _formats(r: RecipeFields) -> Iterator[str]:
    if r.game.prompts == "sandbox":
        for key, known in (("attacker_format", "think_prompt"), ("defender_format", "plain")):
            if (given := getattr(r.game, key)) != known:
                yield f"game.{key}: {given} with game.prompts sandbox, whose players know {known} only; set it to {known}"


def _who_learns(r: RecipeFields) -> Iterator[str]:
    learns = [p for p in PLAYERS if r.learners.of(p).train]
    every, push = r.learners.alternate_every, r.push.every
    if not learns:
        yield "learners: train is false for both players, so nothing is learned; set one to true"
    elif every is not None and len(learns) < 2:
        yield (
            f"learners.alternate_every: {every} needs two players to take turns; "
            "set learners.alternate_every to null, or train to true for both"
        )
    if every is not None and every % push:
        yield (
            f"learners.alternate_every: {every} is no multiple of push.every {push}, so a turn would end before its last "
            "version is pushed; set it to a multiple"
        )


def _losses(r: RecipeFields) -> Iterator[str]:
    for player in PLAYERS:
        config = r.learners.of(player)
        if config.sft.path is not None and not config.train:
            yield f"learners.{player}.sft.path: set for a player that does not learn; set it to null, or train to true"
        if config.loss != "grpo" or not config.train:
            continue
        if config.nll > 0:
            yield (
                f"learners.{player}.nll: {config.nll} with loss grpo, which has no chosen item; "
                "set nll to 0 or loss to dpo or ipo"
            )
        if config.reference == "ema":
            yield (
                f"learners.{player}.reference: ema with loss grpo, whose KL term would follow the policy and hold nothing "
                "back; set it to frozen"
            )


def _staleness(r: RecipeFields) -> Iterator[str]:
    stale = r.replay.max_staleness
    if r.synchronous and stale > 0:
        yield f"replay.max_staleness: {stale} with synchronous true, which is staleness 0; remove one of the two"
    if r.push.to == "spread" and stale < 2:
        yield (
            f"push.to: spread with replay.max_staleness {stale}, which leaves no past version to serve; "
            "set replay.max_staleness to at least 2, or push.to to all"
        )
    if r.push.to == "spread" and r.generation.workers < 2:
        yield (
            f"push.to: spread needs several workers for each player, generation.workers is {r.generation.workers}; "
            "raise it to at least 2, or set push.to to all"
        )


def _capacity(r: RecipeFields) -> Iterator[str]:
    rows_per_game = {"attacker": 1, "defender": r.game.attacks}
    for player in r.trained:
        games = r.learners.of(player).batch_games
        needed = games * rows_per_game[player]
        if r.replay.capacity_rows < needed:
            yield (
                f"replay.capacity_rows: {r.replay.capacity_rows} is below the {needed} rows that a batch of {games} games may "
                f"give the {player}; set replay.capacity_rows to at least {needed}"
            )


def _transport(r: RecipeFields) -> Iterator[str]:
    wanted = r.push.transport
    if wanted == "auto":
        return
    for player in r.trained:
        if (hindrance := hindrance_of(wanted, r, player)) is not None:
            yield f"push.transport: {wanted} {hindrance}; set it to auto or host"
            return


def _gpus(r: RecipeFields) -> Iterator[str]:
    engines = [("generation", r.generation.gpus_per_worker, r.generation.tensor_parallel)]
    if r.judge.kind == "lm":
        engines.append(("judge", r.judge.gpus_per_worker, r.judge.engine.tensor_parallel))
    for name, gpus, parallel in engines:
        if parallel > 1 and 0 < gpus < parallel:
            yield f"{name}.gpus_per_worker: {gpus:g} is below tensor_parallel {parallel}; set it to {parallel}"


def _rollout(r: RecipeFields) -> Iterator[str]:
    if r.rollout.workers > r.game.in_flight:
        yield (
            f"rollout.workers: {r.rollout.workers} share the game.in_flight {r.game.in_flight} games, so that some would play "
            "none; lower the first or raise the second"
        )


def _judge(r: RecipeFields) -> Iterator[str]:
    if r.judge.alarm.pause_s >= r.run.stall_s:
        yield (
            f"judge.alarm.pause_s: {r.judge.alarm.pause_s:g} is not below run.stall_s {r.run.stall_s:g}, so a paused run would "
            "end before it asks again; lower the first or raise the second"
        )
    left_out = sorted(r.judge.sampling.left_out)
    if left_out and r.judge.kind == "lm":
        yield f"judge.sampling.{left_out[0]}: null with judge.kind lm; only an API's requests can leave it out: give a value"
    if r.judge.kind == "api":
        budgets = [key for key in ("budget", "budget_tokens") if getattr(r.judge.api, key) is not None]
        if "max_new_tokens" in left_out and budgets:
            yield (
                f"judge.sampling.max_new_tokens: null with judge.api.{budgets[0]}, which cannot be kept where an answer may "
                f"have any length; give a number, or set judge.api.{budgets[0]} to null"
            )
        for key in ("base_url", "model"):
            if getattr(r.judge.api, key) is None:
                yield f"judge.api.{key}: null with judge.kind api; give the endpoint's {key}"
        if r.judge.workers != 1:
            yield (
                f"judge.workers: {r.judge.workers} with judge.kind api: one worker keeps the limits and the budget; "
                "set it to 1"
            )


def _match(r: RecipeFields) -> Iterator[str]:
    """What asks for a model, of the judge that has none. `judge.model` and `judge.api` stay, so that one key changes the judge."""
    judge = r.judge
    if judge.kind != "match":
        return
    for key, given, wanted, why in (
        ("verdicts", judge.verdicts, 1, "whose answer is the same each time"),
        ("structured", judge.structured, False, "which writes nothing"),
        ("rubrics", judge.rubrics, "standard", "which reads tables (judge/match/tables) and no rubrics"),
        ("gpus_per_worker", judge.gpus_per_worker, 0, "which has no model to put there"),
    ):
        if given != wanted:
            yield f"judge.{key}: {_plain(given)} with judge.kind match, {why}; set it to {_plain(wanted)}"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _promotion(r: RecipeFields) -> Iterator[str]:
    if r.promotion is not None and r.seeds.heldout is None:
        yield "promotion: nothing is measured without seeds.heldout; give seeds.heldout, or set promotion to null"
    if r.promotion is not None and not r.learners.defender.train:
        yield "promotion: the Defender is frozen, so there is nothing to promote; set promotion to null"


_CHECKS: tuple[Callable[[RecipeFields], Iterator[str]], ...] = (
    _lengths,
    _deadlines,
    _engines,
    _formats,
    template_arguments,
    warm_start,
    _who_learns,
    untaught,
    _losses,
    _staleness,
    _capacity,
    _transport,
    _gpus,
    _rollout,
    _judge,
    _match,
    _promotion,
)
