"""The recipe's fields: unit, default and the reason for the default.

Each part of the system is built from its own section. A knob that can be derived from another is not here.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0)]
SANDBOX = "sandbox"  # a path of this value means "the embedded sandbox's"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class RunConfig(_Section):
    """Where the run lies and what it derives its randomness from."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = (
        None  # null: the recipe's file name and the time
    )
    dir: str = "runs"
    seed: Annotated[int, Field(ge=0)] = 0
    steps: Positive = 1000  # optimizer steps of each learner; the paper's number
    stall_s: Seconds = (
        300.0  # nothing learned, judged or generated for this long ends the run with the blocked edge's name
    )


class ModelConfig(_Section):
    """A Hugging Face folder (weights, tokenizer, chat template), or `sandbox`."""

    path: str = SANDBOX


class ModelsConfig(_Section):
    attacker: ModelConfig = ModelConfig()
    defender: ModelConfig = ModelConfig()


class SeedsConfig(_Section):
    """JSONL files of `{"prompt": text, "category": "harmful" | "benign"}`, or `sandbox`. `heldout` may be null."""

    train: str = SANDBOX
    heldout: str | None = SANDBOX


class SamplingConfig(_Section):
    """How both players sample. The defaults are the paper's."""

    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 0.6
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    max_new_tokens: Positive = 2048


class GameConfig(_Section):
    """The rules that GAME.md leaves open."""

    attacks: Annotated[int, Field(ge=1, le=64)] = 2  # A: attacks on each seed
    responses: Annotated[int, Field(ge=1, le=64)] = 2  # D: responses to each valid attack
    prompts: Literal["standard", "sandbox"] = "standard"
    attacker_format: Literal["think_prompt", "prompt"] = "think_prompt"
    defender_format: Literal["plain", "think_plain", "think_answer"] = "plain"
    optimistic: bool = True  # an attack is scored through the defender's best response
    defender_query: Literal["attack", "seed"] = "attack"  # what the judge is told that the defender was asked
    in_flight: Positive = 64  # games that one rollout worker plays at once


class JudgeConfig(_Section):
    """Who judges. `rules` knows the sandbox's world exactly and nothing else; `none` fails every verdict."""

    kind: Literal["rules", "none"] = "rules"
    workers: Positive = 2
    both_orders: bool = True  # every pair is judged as (i, j) and (j, i); disagreement is a tie
    attempts: Positive = 3  # an unparseable verdict is asked again with another seed
    deadline_s: Seconds = 60.0
    cpus_per_worker: Annotated[float, Field(ge=0.0)] = 0.1


class GenerationConfig(_Section):
    """The vLLM engine of each player's generation workers."""

    workers: Positive = 1  # for each player
    dtype: Literal["bfloat16", "float32", "auto"] = "auto"
    max_model_len: Positive = 4096  # tokens, prompt and completion
    kv_cache_gib: Annotated[float, Field(gt=0.0)] = 1.0  # CPU only
    gpu_memory_utilization: Fraction = 0.85  # GPU only
    tensor_parallel: Positive = 1
    max_num_seqs: Positive = 128
    enforce_eager: bool = True  # CPU: a compiled graph saves nothing on a tiny model and costs seconds at start
    cpus_per_worker: Annotated[float, Field(ge=0.0)] = 0.5
    gpus_per_worker: Annotated[float, Field(ge=0.0)] = 0.0
    threads: Positive = 1  # OpenMP threads of an engine on the CPU
    deadline_s: Seconds = 300.0  # for one request
    start_deadline_s: Seconds = 300.0


class ReplayConfig(_Section):
    """The replay buffer. Staleness counts policy versions between sampling and learning."""

    max_staleness: Annotated[int, Field(ge=0)] = 4
    capacity_rows: Positive = 100_000  # for each table
    fsync_s: Annotated[float, Field(ge=0.0)] = 0.5  # group commit: rows wait at most this long for their fsync


class LearnerConfig(_Section):
    """One player's learner group. Defaults are the paper's."""

    beta: Annotated[float, Field(gt=0.0)] = 0.1
    lr: Annotated[float, Field(gt=0.0)] = 1e-6
    lr_final_fraction: Fraction = 0.2  # of `lr`, where the cosine ends
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    clip: Annotated[float, Field(gt=0.0)] = 1.0
    ema_decay: Fraction = 0.95
    batch_games: Positive = 64  # finished games whose rows make a step, over all ranks; the paper: 32 of each category
    max_tokens: Positive = 16_384  # padded tokens in one forward of one rank
    ranks: Positive = 2
    dtype: Literal["bfloat16", "float32"] = "bfloat16"  # of compute; optimizer, gradients sums and EMA are fp32
    stage3_param_persistence_threshold: Annotated[int, Field(ge=0)] = 100_000
    checkpoint_every: Positive = 50  # steps
    cpus_per_rank: Annotated[float, Field(ge=0.0)] = 0.25
    gpus_per_rank: Annotated[float, Field(ge=0.0)] = 0.0
    threads: Positive = 1  # torch threads of a rank on the CPU
    collective_deadline_s: Seconds = 600.0
    restarts: Annotated[int, Field(ge=0)] = 3  # of the whole group, from its last checkpoint


class LearnersConfig(_Section):
    attacker: LearnerConfig = LearnerConfig()
    defender: LearnerConfig = LearnerConfig()


class PushConfig(_Section):
    """How versions reach the generation workers."""

    every: Positive = 1  # steps
    deadline_s: Seconds = 60.0  # for one worker, all phases; past it the worker is replaced


class HeldoutConfig(_Section):
    """The measurement before and after training."""

    samples: Positive = 1  # attacks on each held-out seed
    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 0.6
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9


class Recipe(_Section):
    """A run, whole."""

    run: RunConfig = RunConfig()
    models: ModelsConfig = ModelsConfig()
    seeds: SeedsConfig = SeedsConfig()
    game: GameConfig = GameConfig()
    sampling: SamplingConfig = SamplingConfig()
    judge: JudgeConfig = JudgeConfig()
    generation: GenerationConfig = GenerationConfig()
    replay: ReplayConfig = ReplayConfig()
    learners: LearnersConfig = LearnersConfig()
    push: PushConfig = PushConfig()
    heldout: HeldoutConfig = HeldoutConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sampling.max_new_tokens >= self.generation.max_model_len:
            raise ValueError(
                f"sampling.max_new_tokens: {self.sampling.max_new_tokens} leaves no room for a prompt in "
                f"generation.max_model_len {self.generation.max_model_len}; lower the first or raise the second"
            )
        return self
