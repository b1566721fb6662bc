"""The sandbox's judge: its folder, and the key of that folder.

It is built apart from the players, because it takes minutes where they take seconds: only a recipe that names this judge
(`judge.model: sandbox` with `kind: lm`) builds it. `store` makes the folder.
"""

from pathlib import Path

import cluster.sandbox.rule_judge
import cluster.sandbox.world
from cluster.sandbox import store
from cluster.waiting import Note
from judge.rubric import MAX_BENIGN_GROWTH, load_rubrics
from protocol.types import JudgeRequest

BUILD_DEADLINE_S = 1800.0  # it took 335 s on two cores that others used, too
THREADS = 2
SOURCES = (
    *("judge_model.py", "judge_reasons.py", "judge_samples.py", "judge_trace.py"),
    *("replies.py", "samples.py", "tokenizer.py", "tiny_qwen.py"),  # the players' words; how a model is built and saved
)


def judge_key() -> str:
    """Changes with the world, the rule judge, the rubrics and their fences, what trains the judge, and the libraries."""
    here = Path(__file__).parent
    parts = [Path(cluster.sandbox.world.__file__).read_text(), Path(cluster.sandbox.rule_judge.__file__).read_text()]
    parts += [(here / name).read_text() for name in SOURCES]
    rubrics = load_rubrics("sandbox")
    shown = [JudgeRequest("compliance", "benign", "query", texts) for texts in (("one",), ("one", "two"))]
    parts += [str(MAX_BENIGN_GROWTH), *rubrics.names, *(str(rubrics.render(request)[0]) for request in shown)]
    return store.digest(parts)


def ensure_sandbox_judge(root: Path | None = None, note: Note = lambda far: None) -> Path:
    """The Hugging Face folder of the sandbox's judge, trained now if this machine has not trained it yet (about 5 minutes).

    Args:
        root: where sandboxes are cached; `store.cache_root()` if None.
        note: is told how far the training is.

    Raises:
        UserError: the cache cannot be written.
        RuntimeError: the model could not be trained; the message ends with its process's last lines.
    """
    root = store.cache_root() if root is None else root
    name = f"sandbox-judge-{judge_key()}"
    return store.build_once(root, name, lambda draft: _train(draft, note), BUILD_DEADLINE_S, note) / "judge"


def _train(draft: Path, note: Note) -> None:
    command = ("cluster.sandbox.judge_model", str(draft / "judge"))
    store.train_in_processes({"judge": command}, draft, THREADS, BUILD_DEADLINE_S, note)
