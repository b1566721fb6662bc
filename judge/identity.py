"""How judges are named in verdicts."""

import json
from pathlib import Path
from typing import assert_never

from protocol.recipe import JudgeConfig

NO_JUDGE = "no judge"  # the failure of every verdict of kind `none`
RULES_ID = "rules-1"  # the sandbox's exact judge, kind `rules`
MATCH_VERSION = 1  # of the rules of `judge.match`: another score for the same text and tables is another version
MATCH_ID = f"match-{MATCH_VERSION}"  # kind `match`


def judge_id_of(config: JudgeConfig, digest: str | None = None) -> str:
    """How the recipe's judge is named in verdicts: `rules-1`, `match-1`, `lm:FOLDER@DIGEST`, `api:MODEL` or `none`.

    Arguments of the judge's chat template are part of its name, as in `lm:FOLDER@DIGEST(enable_thinking=false)`.

    Args:
        digest: of the folder's model (`cluster.inputs.judge_digest`), for kind `lm`: another folder of that name is another judge.
            None where nobody looked into it.
    """
    match config.kind:
        case "rules":
            return RULES_ID
        case "match":
            return MATCH_ID
        case "lm":
            name = Path(config.model).name
            given = ",".join(f"{key}={json.dumps(value)}" for key, value in sorted(config.template_arguments.items()))
            arguments = f"({given})" if given else ""
            return f"lm:{name}{arguments}" if digest is None else f"lm:{name}@{digest}{arguments}"
        case "api":
            return f"api:{config.api.model}"
        case "none":
            return "none"
        case _:
            assert_never(config.kind)
