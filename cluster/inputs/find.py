"""Seeds, models and judge of a recipe, found and checked before anything is started or written.

`sandbox` stands for the embedded sandbox's files. Bad seed lines are kept for `quarantine.jsonl` in the run directory.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.inputs.engine_options import check_engine
from cluster.inputs.judge_digest import digest_model
from cluster.inputs.labels import Label, load_labels
from cluster.rundir import RunDir
from cluster.sandbox import SandboxPaths, ensure_sandbox
from cluster.sandbox.world import find_task
from judge.rubric import load_rubrics
from learners.batch.demonstrations import read_examples
from learners.storage.models import check_model_folder
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


def _check_length(folder: str, wanted: int, where: str, limits: str) -> None:
    """A model must be able to hold what the engine is told to serve: `wanted` tokens, the value of the key `limits`."""
    limit = json.loads((Path(folder) / "config.json").read_text()).get("max_position_embeddings")
    if isinstance(limit, int) and limit < wanted:
        raise UserError(
            f"{where}: {folder} takes {limit} tokens, {limits} asks for {wanted}; set {limits} to at most {limit}"
        )


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


@dataclass(frozen=True, slots=True)
class FoundJudge:
    """A judge that can be asked.

    Attributes:
        model: the folder of `judge.kind: lm`, else None.
        digest: of that folder's model, else None.
        rubrics: names with versions and digests; none where none are read.
    """

    model: str | None = None
    digest: str | None = None
    rubrics: tuple[str, ...] = ()


def find_judge(
    recipe: Recipe, say: Callable[[str], None], ledger: Path | None = None, seeds: Sequence[Seed] = ()
) -> FoundJudge:
    """Checks that the recipe's judge can be asked; builds the sandbox's (some minutes, once) if the recipe names it.

    Args:
        say: told before something takes long.
        ledger: of a run that is resumed, so that what the check costs is booked and a spent budget refused.
        seeds: what it will be asked about; the longest must fit.

    Raises:
        UserError: an argument that vLLM does not know, rubrics that are not as they should be, a model folder that is incomplete,
            a context too short for the longest question, an endpoint that does not answer as it should.
    """
    judge = recipe.judge
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
            folder = str(ensure_sandbox_judge())
        else:
            folder = str(Path(judge.model).expanduser().resolve())
        check_model_folder(folder, "judge.model")
        _check_length(folder, judge.engine.max_model_len, "judge.model", "judge.engine.max_model_len")
        check_judge_context(recipe, folder, rubrics, seeds)
        digest = digest_model(Path(folder))
    return FoundJudge(folder, digest, tuple(rubrics.names))


def find_inputs(recipe: Recipe, say: Callable[[str], None], resumed: RunDir | None = None) -> Inputs:
    """Checks every path of the recipe; builds the sandbox (about a minute, once) if the recipe names it.

    Args:
        say: told before something takes long.
        resumed: the directory of a run that is resumed.

    Raises:
        UserError: vLLM knows no such argument, a model folder is incomplete or too short, a file of seeds or demonstrations is
            missing or has no good line, or the judge cannot be asked (`find_judge`).
    """
    check_engine("generation", recipe.generation, recipe.generation.gpus_per_worker)
    sandbox: SandboxPaths | None = None
    named = [recipe.models.attacker.path, recipe.models.defender.path, recipe.seeds.train, recipe.seeds.heldout]
    if recipe.seeds.train != SANDBOX:
        read_seeds(Path(recipe.seeds.train), "seeds.train")  # cheap to refuse before the sandbox is built
    for player in recipe.trained:
        demonstrations = recipe.learners.of(player).sft.path
        if demonstrations is not None:
            read_examples(demonstrations, f"learners.{player}.sft.path")
    if SANDBOX in named:
        say("the sandbox's two models are taken from the cache, or trained now (about a minute, once)")
        sandbox = ensure_sandbox()

    def resolve(value: str, file: str) -> str:
        return str(getattr(sandbox, file) if value == SANDBOX else Path(value).expanduser().resolve())

    models: dict[Player, str] = {}
    for player in PLAYERS:
        folder = resolve(getattr(recipe.models, player).path, player)
        check_model_folder(folder, f"models.{player}.path", trained=player in recipe.trained)
        _check_length(folder, recipe.generation.max_model_len, f"models.{player}.path", "generation.max_model_len")
        models[player] = folder
    train_file = resolve(recipe.seeds.train, "train_seeds")
    train, bad = read_seeds(Path(train_file), "seeds.train")
    quarantine = {train_file: bad}
    heldout: list[Seed] = []
    if recipe.seeds.heldout is not None:
        heldout_file = resolve(recipe.seeds.heldout, "heldout_seeds")
        heldout, quarantine[heldout_file] = read_seeds(Path(heldout_file), "seeds.heldout")
    _check_world(recipe, train, heldout)
    probe = [] if recipe.judge.probe.file is None else load_labels(recipe.judge.probe.file, "judge.probe.file")
    judge = find_judge(recipe, say, None if resumed is None else resumed.ledger, [*train, *heldout])
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
    )
