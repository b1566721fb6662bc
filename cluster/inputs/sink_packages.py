"""The sinks that a recipe names can be written to from here: their packages are installed, their secrets are set.

Only what can be seen without a network, and without importing them. A server that does not answer is no reason not to start.
"""

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from protocol.errors import UserError
from protocol.recipe import SinksConfig

PACKAGES = {  # by sink: the module that must be there, and the package that brings it
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow-skinny"),
    "tensorboard": ("tensorboard", "tensorboard"),
}
KEY = "WANDB_API_KEY"


def check_sinks(
    sinks: SinksConfig,
    environment: Mapping[str, str] = os.environ,
    find: Callable[[str], object | None] = find_spec,
) -> None:
    """Raises `UserError` for a sink whose package or secret is missing. `find` gives None for a module that is not there."""
    for name in sinks.named:
        module, package = PACKAGES[name]
        if find(module) is None:
            raise UserError(
                f"observe.sinks.{name}: the package {package} is not installed here; pip install {package}, or leave "
                f"observe.sinks.{name} out"
            )
    if sinks.wandb is not None and sinks.wandb.mode == "online" and not environment.get(KEY):
        raise UserError(
            f"observe.sinks.wandb.mode: online needs {KEY}, which is not set in the environment; set it, or set "
            "observe.sinks.wandb.mode to offline"
        )
