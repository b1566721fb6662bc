"""Settings of models that contradict each other: arguments of chat templates, and the warm start."""

from collections.abc import Iterator

from protocol.recipe.schema import RecipeFields
from protocol.roles import PLAYERS

# Arguments of transformers' `apply_chat_template` that are no template's, or that are set for each prompt.
RENDERING = frozenset(
    (
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    )
)


def template_arguments(r: RecipeFields) -> Iterator[str]:
    """Whether the template reads an argument is checked where the template is (`cluster.inputs.template_arguments`)."""
    given = {f"models.{p}.template_arguments": r.models.of(p).template_arguments for p in PLAYERS}
    for key, arguments in (given | {"judge.template_arguments": r.judge.template_arguments}).items():
        for name in sorted(RENDERING & arguments.keys()):
            yield f"{key}.{name}: is set for each prompt and no template's; remove it"
    if r.judge.template_arguments and r.judge.kind != "lm":
        yield (
            f"judge.template_arguments: set with judge.kind {r.judge.kind}, which has no template here; remove it, or set "
            "judge.kind to lm"
        )


def warm_start(r: RecipeFields) -> Iterator[str]:
    """What a warm start is learned from, and that it is not undone by the reference."""
    for player in PLAYERS:
        config, where = r.learners.of(player), f"learners.{player}"
        steps = config.sft.warm_steps
        if not steps:
            continue
        if not config.train:
            yield f"{where}.sft.warm_steps: {steps} for a player that does not learn; set it to 0, or train to true"
        if config.reference == "frozen":
            yield (
                f"{where}.sft.warm_steps: {steps} with reference frozen, which is the model from before the warm start and would "
                f"pull back to it; set {where}.reference to ema or sampler, or begin from the export of a run that was warmed"
            )
        if config.sft.path is None and player == "defender":
            yield (
                f"{where}.sft.warm_steps: {steps} without {where}.sft.path, and no rule can write a Defender's answers; give "
                "demonstrations, or set it to 0"
            )
        if config.sft.path is None and player == "attacker" and r.game.prompts == "sandbox":
            yield (
                f"{where}.sft.warm_steps: {steps} with game.prompts sandbox, whose attacker has learned its format already; set it "
                "to 0, or give sft.path"
            )
