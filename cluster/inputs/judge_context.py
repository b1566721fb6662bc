"""Does the longest question that a run can ask fit into the judge's context? Checked before anything starts."""

from collections.abc import Iterable

from judge.rubric import Rubrics, check_context
from protocol.recipe import Recipe
from protocol.types import Seed

CHARS_PER_TOKEN = (
    3  # of an API's model, whose tokenizer we do not have; English takes more, so this errs on the safe side
)


def check_judge_context(recipe: Recipe, model_path: str | None, rubrics: Rubrics, seeds: Iterable[Seed] = ()) -> None:
    """Refuses a recipe whose longest question, and the answer to it, do not fit into its judge's context.

    Tokens are the judge's own for kind `lm`, with its chat template; for kind `api` they are estimated, and the limit is
    `judge.api.context`, if it is known. The players' limits are counted in their own tokens, which is close enough to refuse
    what cannot work.

    Args:
        model_path: the judge's folder; read for kind `lm` only.
        rubrics: what it is asked with.
        seeds: what is played on; a seed is the query of its own attacks, and no player's limit holds for it.

    Raises:
        UserError: with the numbers.
    """
    judge = recipe.judge
    if judge.kind == "lm":
        from transformers import AutoTokenizer  # a second of imports

        tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)

        def count(text: str) -> int:
            chat = [{"role": "user", "content": text}]
            ids = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_dict=False, **judge.template_arguments
            )
            return len(ids)

        limit, where = judge.engine.max_model_len, "judge.engine.max_model_len"
    elif judge.kind == "api" and judge.api.context is not None:
        limit, where = judge.api.context, "judge.api.context"

        def count(text: str) -> int:
            return -(-len(text) // CHARS_PER_TOKEN)
    else:
        return
    response = recipe.sampling.max_new_tokens
    # A token is a byte at least, so no shorter seed can be the longest query; to tokenize them all would take a minute of many.
    long = [count(seed.text) - count("") for seed in seeds if len(seed.text.encode()) > response]
    query = max([response, *long])
    check_context(rubrics, count, query, response, judge.sampling.max_new_tokens or 0, limit, where, judge.form)
