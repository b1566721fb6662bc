"""How judges are named in verdicts."""

from pathlib import Path
from typing import assert_never

from protocol.recipe import JudgeConfig

NO_JUDGE = "no judge"  # the failure of every verdict of kind `none`
RULES_ID = "rules-1"  # the sandbox's exact judge, kind `rules`


def judge_id_of(config: JudgeConfig) -> str:
    """How the recipe's judge is named in verdicts: `rules-1`, `lm:FOLDER`, `api:MODEL` or `none`."""
    match config.kind:
        case "rules":
            return RULES_ID
        case "lm":
            return f"lm:{Path(config.model).name}"
        case "api":
            return f"api:{config.api.model}"
        case "none":
            return "none"
        case _:
            assert_never(config.kind)
