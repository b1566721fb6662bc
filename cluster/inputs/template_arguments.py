"""Does a model's chat template read the arguments that a recipe gives it? Others would change nothing, in silence."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protocol.errors import UserError


def check_template_arguments(folder: str, arguments: Mapping[str, Any], where: str) -> None:
    """Raises `UserError` for an argument whose name stands nowhere in the chat template.

    Args:
        folder: of the model; it has a chat template.
        where: the recipe's key, for the message.
    """
    if not arguments:
        return
    names = set(re.findall(r"[A-Za-z_]\w*", _read_template(Path(folder))))
    for name in arguments:
        if name not in names:
            raise UserError(
                f"{where}.{name}: the chat template of {folder} does not read it; remove it or correct its name"
            )


def _read_template(folder: Path) -> str:
    """The template's text; of several, all."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return json.dumps(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template"))
