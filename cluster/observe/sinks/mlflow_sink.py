"""MLflow: a run of an experiment, on a server or in a folder. Credentials are MLflow's own, from the environment."""

import os
from typing import Any

from cluster.observe.sinks.sink import Record, RunFacts, find_id, keep_id
from protocol.recipe import MlflowConfig

AT_ONCE = 100  # parameters in one call: the server's limit
STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
DEFAULTS = {  # of its environment, which may say otherwise
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Its own defaults keep a call at a dead server for a quarter of an hour.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a folder is one of the places that a recipe may name
}


class MlflowSink:
    """See `sink.Sink`. A resumed run goes on in the MLflow run of its first part."""

    def __init__(self, config: MlflowConfig) -> None:
        self._config = config
        self._client: Any = None
        self._run = ""

    def start(self, run: RunFacts) -> None:
        """Makes the experiment and the run, with the recipe's settings as parameters, or finds them."""
        for key, value in DEFAULTS.items():
            os.environ.setdefault(key, value)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        uri = self._config.tracking_uri
        self._client = MlflowClient(tracking_uri=uri or (run.folder / "store").as_uri())
        if (earlier := find_id(run)) is not None:
            self._run = earlier
            self._client.update_run(earlier, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(self._config.experiment)
        experiment = self._client.create_experiment(self._config.experiment) if found is None else found.experiment_id
        made = self._client.create_run(experiment, run_name=run.name, tags={"advgame.run": run.name})
        self._run = keep_id(run.folder, made.info.run_id)
        params = [Param(key, str(value)) for key, value in run.settings.items()]
        for first in range(0, len(params), AT_ONCE):
            self._client.log_batch(self._run, params=params[first : first + AT_ONCE])

    def write(self, record: Record) -> None:
        """One call for all numbers of the record."""
        from mlflow.entities import Metric

        at = (round(1000 * record.time_s), record.step)
        self._client.log_batch(self._run, [Metric(name, value, *at) for name, value in record.values.items()])

    def end(self, status: str) -> None:
        """Says how the run ended."""
        self._client.set_terminated(self._run, STATUS[status])

    def abandon(self) -> None:
        """Nothing: its threads are daemons."""
