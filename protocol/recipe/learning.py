"""The recipe's `learners` and `quirks` sections: losses, references, schedules, ranks."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from protocol.recipe.sections import Fraction, NonNegative, Positive, Rule, Seconds, Section
from protocol.roles import Player

Loss = Literal["dpo", "ipo", "grpo"]


class QuirksConfig(Section):
    """Where the reference implementation does something that GAME.md corrects. `default` is the corrected rule."""

    judge_orders: Rule = "default"  # every pair judged as (i, j) and (j, i), disagreement is a tie | (i, j) only
    grpo_ratio: Rule = (
        "default"  # the importance ratio is detached | it is not, which doubles the gradient below the cap
    )
    grpo_penalised: Rule = "default"  # items at -1 are learned from | they only shift the mean
    grpo_baseline: Rule = "default"  # baseline "seed" is the group's mean | the mean of all items on the rank
    lr_schedule: Rule = "default"  # one horizon | the schedule advances twice a step, once for each category's batch


class SftConfig(Section):
    """Demonstrations: mixed into a learner's loss, as weight * mean token NLL of a few examples each step, and for a warm start."""

    path: str | None = None  # JSONL of {"prompt", "response"}; null: none
    weight: NonNegative = 0.1
    batch: Positive = 8  # examples a step, over all ranks
    # Supervised steps before the game, of `batch` examples each, on `path`'s or, for an Attacker without, on examples of its format
    # that a rule makes of the seeds. They are no steps of the run: its first version is what they end at.
    warm_steps: Annotated[int, Field(ge=0)] = 0
    warm_lr: Annotated[float, Field(gt=0.0)] = (
        1e-5  # constant; usual for supervised fine-tuning. LoRA wants about ten times as much
    )


class LoraConfig(Section):
    """Low-rank adapters on the policy's linear layers; the merged weights are pushed and exported."""

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0.0)] = 32.0  # the update is scaled by alpha / rank
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LearnerConfig(Section):
    """One player's learner group. Defaults are the paper's headline mode.

    `loss: grpo` alone means the paper's GRPO: it compares with the frozen starting model and samples from the policy itself.
    """

    train: bool = True  # false: frozen; it plays with its starting weights to the end
    loss: Loss = "dpo"
    beta: Annotated[float, Field(gt=0.0)] = 0.1  # DPO, IPO: see GAME.md 4; GRPO: weight of the KL term
    nll: NonNegative = 0.0  # weight of the chosen item's mean token NLL (DPO, IPO)
    entropy: NonNegative = 0.0  # weight of the policy's mean token entropy, which the loss raises
    length: Literal["sum", "mean"] = "sum"  # of token log-probabilities over a completion; mean normalises by length
    # What Delta and the KL term compare with. sampler: the log-probabilities under which the items were sampled; no forward pass.
    reference: Literal["ema", "frozen", "sampler"] = "ema"
    sampler: Literal["ema", "policy"] = "ema"  # whose weights are pushed, played with and exported
    baseline: Literal["seed", "batch"] = "seed"  # GRPO: over whose items the mean reward is taken
    ratio_cap: Annotated[float, Field(gt=0.0)] = 2.0  # GRPO: truncated importance sampling
    sft: SftConfig = SftConfig()
    lr: Annotated[float, Field(gt=0.0)] = 1e-6
    lr_final_fraction: Fraction = 0.2  # of `lr`, where the cosine ends
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    weight_decay: NonNegative = 0.1
    clip: Annotated[float, Field(gt=0.0)] = 1.0
    ema_decay: Fraction = 0.95
    batch_games: Positive = 64  # finished games whose rows make a step, over all ranks; the paper: 32 of each category
    max_tokens: Positive = 16_384  # padded tokens in one forward of one rank
    ranks: Positive = 2
    dtype: Literal["bfloat16", "float32"] = "bfloat16"  # of compute; optimizer, gradients sums and EMA are fp32
    stage3_param_persistence_threshold: Annotated[int, Field(ge=0)] = 100_000
    checkpoint_every: Positive = 50  # steps
    cpus_per_rank: NonNegative = 0.25
    gpus_per_rank: NonNegative = 0.0
    lora: LoraConfig | None = None  # null: every parameter is trained
    offload: Literal["none", "optimizer", "all"] = "none"  # to the CPU's memory: optimizer states | parameters too
    activation_checkpointing: bool | None = (
        None  # null: on a GPU only, where memory for the activations of 16k tokens is short
    )
    threads: Positive = 1  # torch threads of a rank on the CPU
    collective_deadline_s: Seconds = 600.0
    restarts: Annotated[int, Field(ge=0)] = 3  # of the whole group, from its last checkpoint

    @model_validator(mode="before")
    @classmethod
    def _grpo_is_on_policy(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("loss") == "grpo":
            return {"reference": "frozen", "sampler": "policy"} | values
        return values


class LearnersConfig(Section):
    attacker: LearnerConfig = LearnerConfig()
    defender: LearnerConfig = LearnerConfig()
    alternate_every: Positive | None = (
        None  # steps of a turn: attacker first, the other waits; null: both learn at once
    )

    def of(self, player: Player) -> LearnerConfig:
        """A player's section."""
        return self.attacker if player == "attacker" else self.defender
