"""How judges are named in verdicts."""

from pathlib import Path
from typing import assert_never

from protocol.recipe import JudgeConfig

NO_JUDGE = "no judge"  # the failure of every verdict of kind `none`
RULES_ID = "rules-1"  # the sandbox's exact judge, kind `rules`


def judge_id_of(config: JudgeConfig, digest: str | None = None) -> str:
    """How the recipe's judge is named in verdicts: `rules-1`, `lm:FOLDER@DIGEST`, `api:MODEL` or `none`.

    Args:
        digest: of the folder's model (`cluster.inputs.judge_digest`), for kind `lm`: another folder of that name is another judge.
            None where nobody looked into it.
    """
    match config.kind:
        case "rules":
            return RULES_ID
        case "lm":
            name = Path(config.model).name
            return f"lm:{name}" if digest is None else f"lm:{name}@{digest}"
        case "api":
            return f"api:{config.api.model}"
        case "none":
            return "none"
        case _:
            assert_never(config.kind)
