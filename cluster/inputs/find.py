"""Seeds, models and judge of a recipe, found and checked before anything is started or written.

`sandbox` stands for the embedded sandbox's files. Bad seed lines are kept for `quarantine.jsonl` in the run directory.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.inputs.context_length import check_length
from cluster.inputs.engine_options import check_engine
from cluster.inputs.judge_digest import digest_model
from cluster.inputs.labels import Label, load_labels
from cluster.inputs.model_trial import try_players, try_prompts
from cluster.inputs.overlap import check_overlap
from cluster.inputs.sink_packages import check_sinks
from cluster.inputs.template_arguments import check_template_arguments
from cluster.rundir import RunDir
from cluster.sandbox import SandboxPaths, ensure_sandbox
from cluster.sandbox.world import find_task
from cluster.waiting import Wait, wait_in_lines
from judge.match.judge import can_compare
from judge.match.tables import load_tables
from judge.rubric import load_rubrics
from learners.batch.demonstrations import read_examples
from learners.storage.models import check_model_folder
from learners.storage.weight_files import list_weights
from protocol.errors import UserError
from protocol.recipe import SANDBOX, Recipe
from protocol.roles import PLAYERS, Player
from protocol.seeds import BadLine, read_seeds
from protocol.types import Seed


@dataclass(frozen=True)
class Inputs:
    """What a run reads: absolute model folders, seeds, and the seed lines that were left out.

    Attributes:
        models: folders, absolute.
        dtypes: what each model folder's weights are pushed as by default: "float32" or "bfloat16".
        judge_model: the folder of `judge.kind: lm`, else None.
        judge_digest: of that folder's model, else None.
        rubrics: names with versions and digests, of a judge that reads them; else empty.
        probe: empty without `judge.probe.file`.
        quarantine: bad lines by file.
        weight_bytes: of the weights in each folder of `models` and in `judge_model`, by the folder.
    """

    models: dict[Player, str]
    dtypes: dict[Player, str]
    judge_model: str | None
    judge_digest: str | None
    rubrics: tuple[str, ...]
    train: list[Seed]
    heldout: list[Seed]
    probe: list[Label]
    quarantine: dict[str, list[BadLine]]
    weight_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def quarantined(self) -> int:
        """Bad seed lines, over all files."""
        return sum(len(lines) for lines in self.quarantine.values())

    def quarantine_jsonl(self) -> str:
        """One JSON object for each bad line: file, line number, reason. Never the text."""
        return "".join(
            json.dumps({"file": file, "line": bad.number, "reason": bad.reason}) + "\n"
            for file, lines in self.quarantine.items()
            for bad in lines
        )


def own_dtype(model_path: str) -> str:
    """The dtype that a model folder names, where it is one that travels; else bfloat16."""
    config = json.loads((Path(model_path) / "config.json").read_text())
    named = config.get("dtype") or config.get("torch_dtype")
    return named if named in ("float32", "bfloat16") else "bfloat16"


def measure_weights(model_path: str) -> int:
    """Bytes of the weights in a model folder."""
    return sum(file.stat().st_size for file in list_weights(Path(model_path)))


def _check_world(recipe: Recipe, train: Sequence[Seed], heldout: Sequence[Seed]) -> None:
    """The rule judge fails every verdict on a seed from outside its world."""
    judge = recipe.judge
    asked = [("judge.kind", judge.kind == "rules", "seeds.train", train)]
    asked.append(("heldout.judge", "rules" in (judge.kind, recipe.heldout.judge), "seeds.heldout", heldout))
    for key, by_rules, where, seeds in asked:
        foreign = sum(find_task(seed.text) is None for seed in seeds)
        if by_rules and foreign > judge.alarm.failure_rate * len(seeds):
            raise UserError(
                f"{key}: rules knows the sandbox's world only, and {foreign} of the {len(seeds)} seeds of {where} are not of "
                "it; judge with a model (judge.kind lm or api)"
            )


def _check_words(recipe: Recipe, train: Sequence[Seed], heldout: Sequence[Seed]) -> None:
    """The match judge cannot tell an attack's faithfulness to a seed without a word that it knows."""
    if not recipe.game.faithfulness:
        return
    measures = recipe.judge.kind if recipe.heldout.judge == "run" else recipe.heldout.judge
    asked = [("judge.kind", recipe.judge.kind == "match", "seeds.train", train)]
    asked.append(("heldout.judge", measures == "match", "seeds.heldout", heldout))
    tables = load_tables()
    for key, by_match, where, seeds in asked:
        mute = sum(not can_compare(tables, seed.text) for seed in seeds) if by_match else 0
        if mute > recipe.judge.alarm.failure_rate * len(seeds):
            raise UserError(
                f"{key}: match compares English words, and {mute} of the {len(seeds)} seeds of {where} have none that it could "
                "compare; judge with a model (judge.kind lm or api)"
            )


@dataclass(frozen=True, slots=True)
class FoundJudge:
    """A judge that can be asked.

    Attributes:
        model: the folder of `judge.kind: lm`, else None.
        digest: of that folder's model, else None.
        rubrics: names with versions and digests, or those of the match judge's tables; none where none are read.
    """

    model: str | None = None
    digest: str | None = None
    rubrics: tuple[str, ...] = ()


def find_judge(
    recipe: Recipe,
    say: Callable[[str], None],
    ledger: Path | None = None,
    seeds: Sequence[Seed] = (),
    wait: Wait | None = None,
) -> FoundJudge:
    """Checks that the recipe's judge can be asked; builds the sandbox's (some minutes, once) if the recipe names it.

    Args:
        say: told before something takes long.
        ledger: of a run that is resumed, so that what the check costs is booked and a spent budget refused.
        seeds: what it will be asked about; the longest must fit.
        wait: tells of what takes long while it does; None: `say` does.

    Raises:
        UserError: an argument that vLLM does not know, rubrics that are not as they should be, a model folder that is incomplete,
            a context too short for the longest question, an endpoint that does not answer as it should.
    """
    judge = recipe.judge
    if judge.kind == "match":
        return FoundJudge(rubrics=load_tables().rubric_names)
    if judge.kind not in ("lm", "api"):
        return FoundJudge()
    from cluster.inputs.judge_context import check_judge_context

    rubrics = load_rubrics(judge.rubrics)
    folder: str | None = None
    digest: str | None = None
    if judge.kind == "api":
        from judge.api.client import check_endpoint  # its client takes a second to import

        check_judge_context(recipe, None, rubrics, seeds)
        check_endpoint(judge, ledger)
    else:
        check_engine("judge.engine", judge.engine, judge.gpus_per_worker)
        if judge.model == SANDBOX:
            from cluster.sandbox import ensure_sandbox_judge

            say("the sandbox's judge is taken from the cache, or trained now (a few minutes, once)")
            with (wait or wait_in_lines(say))("the sandbox's judge model", "about 6 minutes on two cores") as note:
                folder = str(ensure_sandbox_judge(note=note))
        else:
            folder = str(Path(judge.model).expanduser().resolve())
        check_model_folder(folder, "judge.model")
        check_template_arguments(folder, judge.template_arguments, "judge.template_arguments")
        check_length(folder, judge.engine.max_model_len, "judge.model", "judge.engine.max_model_len")
        limit = ("judge.engine.max_model_len", judge.engine.max_model_len)
        try_prompts(
            folder,
            "judge.model",
            ([{"role": "user", "content": seed.text}] for seed in seeds[:1]),
            limit,
            say,
            judge.template_arguments,
        )
        check_judge_context(recipe, folder, rubrics, seeds)
        digest = digest_model(Path(folder))
    return FoundJudge(folder, digest, tuple(rubrics.names))


def find_inputs(
    recipe: Recipe, say: Callable[[str], None], resumed: RunDir | None = None, wait: Wait | None = None
) -> Inputs:
    """Checks every path of the recipe; builds the sandbox (about a minute, once) if the recipe names it.

    Args:
        say: told before something takes long.
        resumed: the directory of a run that is resumed.
        wait: tells of what takes long while it does; None: `say` does.

    Raises:
        UserError: vLLM knows no such argument, a model folder is incomplete or too short, a file of seeds or demonstrations is
            missing or has no good line, a sink's package or secret is missing, or the judge cannot be asked (`find_judge`).
    """
    check_sinks(recipe.observe.sinks)
    check_engine("generation", recipe.generation, recipe.generation.gpus_per_worker)
    sandbox: SandboxPaths | None = None
    named = [recipe.models.attacker.path, recipe.models.defender.path, recipe.seeds.train, recipe.seeds.heldout]
    if recipe.seeds.train != SANDBOX:
        read_seeds(Path(recipe.seeds.train).expanduser(), "seeds.train")  # cheap to refuse before the sandbox is built
    demonstrated: list[str] = []
    for player in recipe.trained:
        demonstrations = recipe.learners.of(player).sft.path
        if demonstrations is not None:
            examples = read_examples(demonstrations, f"learners.{player}.sft.path")
            demonstrated += [example.prompt for example in examples]
    if SANDBOX in named:
        say("the sandbox's two models are taken from the cache, or trained now (about a minute, once)")
        with (wait or wait_in_lines(say))("the sandbox's two models", "about 40 s on two cores") as note:
            sandbox = ensure_sandbox(note=note)

    def resolve(value: str, file: str) -> str:
        return str(getattr(sandbox, file) if value == SANDBOX else Path(value).expanduser().resolve())

    models: dict[Player, str] = {}
    for player in PLAYERS:
        model = recipe.models.of(player)
        folder = resolve(model.path, player)
        check_model_folder(folder, f"models.{player}.path", trained=player in recipe.trained)
        check_template_arguments(folder, model.template_arguments, f"models.{player}.template_arguments")
        check_length(folder, recipe.generation.max_model_len, f"models.{player}.path", "generation.max_model_len")
        models[player] = folder
    train_file = resolve(recipe.seeds.train, "train_seeds")
    train, bad = read_seeds(Path(train_file), "seeds.train")
    quarantine = {train_file: bad}
    heldout: list[Seed] = []
    if recipe.seeds.heldout is not None:
        heldout_file = resolve(recipe.seeds.heldout, "heldout_seeds")
        heldout, quarantine[heldout_file] = read_seeds(Path(heldout_file), "seeds.heldout")
    if (overlap := check_overlap(train, heldout, demonstrated)) is not None:
        say(overlap)
    _check_world(recipe, train, heldout)
    _check_words(recipe, train, heldout)
    try_players(recipe, models, train, say)
    probe = [] if recipe.judge.probe.file is None else load_labels(recipe.judge.probe.file, "judge.probe.file")
    judge = find_judge(recipe, say, None if resumed is None else resumed.ledger, [*train, *heldout], wait)
    return Inputs(
        models=models,
        dtypes={player: own_dtype(folder) for player, folder in models.items()},
        judge_model=judge.model,
        judge_digest=judge.digest,
        rubrics=judge.rubrics,
        train=train,
        heldout=heldout,
        probe=probe,
        quarantine=quarantine,
        weight_bytes={
            folder: measure_weights(folder) for folder in (*models.values(), judge.model) if folder is not None
        },
    )
