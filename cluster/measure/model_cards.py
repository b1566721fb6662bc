"""The model cards of a run say what is known of its judge: they are written anew where that has been measured.

Who writes them is handed in: `cluster.run.card`, which this room does not know.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.rundir import RunDir
from protocol.errors import UserError, first_words

WriteModelCards = Callable[[RunDir], Sequence[Path]]  # writes those of a run's exported models; gives their folders


def renew_model_cards(run_dir: RunDir, write: WriteModelCards) -> Sequence[Path]:
    """Gives the folders of the exported models. A run without a summary has not ended, and writes its cards when it does.

    Raises:
        UserError: they cannot be written.
    """
    if not run_dir.summary.is_file():
        return []
    try:
        return write(run_dir)
    except (OSError, ValueError, LookupError, TypeError, UserError) as e:  # files that are gone, or another version's
        raise UserError(
            f"{run_dir.path}: the Judge Card is there, but the model cards of the run are as they were ({first_words(e)}); "
            "see that its recipe.yaml, plan.json and summary.json are whole and of this version of AdvGame, and its disk has room"
        ) from None
