"""The recipe's `observe` section: how a run is shown to people and to other tools.

Secrets are no keys here: each sink's own library takes them from the environment (`WANDB_API_KEY`, `MLFLOW_TRACKING_TOKEN`, ...).
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from protocol.recipe.sections import Section

LogStyle = Literal["plain", "json"]


def _holds_no_secret(uri: str) -> str:
    parts = urlsplit(uri)
    if "@" in parts.netloc or parts.query:
        # The value is not shown: it may be the secret.
        raise ValueError(
            "observe.sinks.mlflow.tracking_uri: it holds a user, a password or a query; name the server alone and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment"
        )
    return uri


class WandbConfig(Section):
    """Weights & Biases."""

    project: Annotated[str, Field(min_length=1)] = "advgame"
    entity: str | None = None  # user or team; null: the key's own
    mode: Literal["online", "offline"] = "online"  # offline: files in the run directory, for `wandb sync`


class MlflowConfig(Section):
    """MLflow."""

    tracking_uri: Annotated[str, Field(min_length=1), AfterValidator(_holds_no_secret)] | None = (
        None  # a server or a folder; null: a folder in the run directory
    )
    experiment: Annotated[str, Field(min_length=1)] = "advgame"


class TensorboardConfig(Section):
    """TensorBoard's event files in the run directory. There is nothing to set."""


class SinksConfig(Section):
    """Where a run's numbers go besides its own files. None by default: each needs a package of its own."""

    wandb: WandbConfig | None = None
    mlflow: MlflowConfig | None = None
    tensorboard: TensorboardConfig | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """The sinks that the recipe asks for."""
        return tuple(name for name in SinksConfig.model_fields if getattr(self, name) is not None)


class ObserveConfig(Section):
    """Nothing here changes what is learned."""

    # plain: for eyes and grep. json: one object a line, for a log store (Loki, Elastic) that asks by field.
    logs: LogStyle = "plain"
    metrics: bool = (
        True  # series at Ray's endpoint, ours and vLLM's; false: boards and alerts stay empty, files and sinks do not
    )
    sinks: SinksConfig = SinksConfig()
    # Games that are written to games.md in the run directory at its end, half its first and half its last. They hold attacks and
    # harmful answers as they are, so there are none unless they are asked for; logs never hold any.
    games: Annotated[int, Field(ge=0)] = 0
