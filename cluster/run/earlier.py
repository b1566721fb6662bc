"""What an earlier part of a run left for the one that resumes it, read before anything starts.

The driver's own files only, each by the module that writes it and reads it again when it is needed: a damaged one must not cost the
start of Ray and of the engines first. Segments, checkpoints and the ledger are their owners'.
"""

from cluster.measure.evaluation import read_start
from cluster.measure.probe import read_probe
from cluster.measure.record import HeldoutRecord
from cluster.observe.history import History
from cluster.plan.plan import Plan


def check_earlier(plan: Plan) -> None:
    """Nothing of a new run. Raises `UserError`, which names the file and the remedy, if one is damaged."""
    if not plan.resumed:
        return
    run_dir, inputs = plan.run_dir, plan.inputs
    History(run_dir)
    HeldoutRecord(run_dir)
    if inputs.heldout and run_dir.heldout.is_file():
        read_start(run_dir.heldout, {seed.id: seed for seed in inputs.heldout})
    if inputs.probe:
        read_probe(run_dir)
