"""Model folders that `evaluate` is given are tried before an engine starts: a suite's prompts written with the real template.

What an engine would find out minutes later, or leave out of the figures prompt by prompt, is told here in one line.
"""

from collections.abc import Callable, Iterator, Sequence

from cluster.inputs.model_trial import Chat, try_prompts
from cluster.inputs.suites.suite import Suite
from cluster.inputs.targets import Manner, Target
from protocol.prompts import defender_messages

LIMIT = "generation.max_model_len"  # --set takes it


def try_target(target: Target, where: str, suites: Sequence[Suite], manner: Manner, say: Callable[[str], None]) -> None:
    """Writes the shortest and the longest prompt of each suite. Nothing is tried of endpoints, nor of checkpoints: those have
    the tokenizer of their run's start, which is a target beside them.

    Args:
        where: the argument that named it, for messages.
        say: told what does no harm.

    Raises:
        UserError: what cannot work, in one line.
    """
    if target.folder is None or target.engine is None:
        return
    limit = (LIMIT, target.engine.max_model_len)
    try_prompts(str(target.folder), where, _ends_of(suites, manner), limit, say, target.template_arguments)


def _ends_of(suites: Sequence[Suite], manner: Manner) -> Iterator[Chat]:
    for suite in suites:
        by_length = sorted((item.prompt for item in suite.items), key=len)
        for prompt in dict.fromkeys(by_length[:1] + by_length[-1:]):
            yield defender_messages(prompt, manner.prompts, manner.format)
