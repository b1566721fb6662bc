"""Arguments of a chat template: those that it reads pass, any other is named."""

import json
from pathlib import Path

import pytest

from cluster.inputs.template_arguments import check_template_arguments
from protocol.errors import UserError

TEMPLATE = "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{{ messages }}"


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_name_that_the_template_does_not_read_is_refused(tmp_path: Path, file: str) -> None:
    text = TEMPLATE if file.endswith("jinja") else json.dumps({"chat_template": [{"name": "a", "template": TEMPLATE}]})
    (tmp_path / file).write_text(text)
    check_template_arguments(str(tmp_path), {"enable_thinking": False}, "k")
    with pytest.raises(UserError, match=r"^k\.enable_thinkin: the chat template of .* does not read it; remove it or"):
        check_template_arguments(str(tmp_path), {"enable_thinking": False, "enable_thinkin": True}, "k")


def test_without_arguments_no_template_is_looked_for(tmp_path: Path) -> None:
    check_template_arguments(str(tmp_path), {}, "k")
