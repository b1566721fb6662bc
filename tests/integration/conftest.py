"""What several modules of integration tests start from."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray

from tests.integration.tiny_qwen import save_tiny


class Actors:
    """The actors that a test made on the Ray that it shares with the others."""

    def __init__(self) -> None:
        self._made: list[Any] = []

    def keep(self, handle: Any) -> Any:
        """Has `handle`'s actor killed when the test ends; gives the handle back."""
        self._made.append(handle)
        return handle

    def kill(self) -> None:
        for handle in self._made:
            ray.kill(handle)


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
    """One Ray for all integration tests, gone before the end-to-end runs start theirs."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=256 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture
def actors(local_ray: None) -> Iterator[Actors]:
    made = Actors()
    yield made
    made.kill()


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random Qwen2 model."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, seed=1)
    return str(folder)
