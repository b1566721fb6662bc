"""What several modules of integration tests start from."""

from collections.abc import Iterator

import pytest
import ray

from tests.integration.ray_actors import Actors


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
    """One Ray for all integration tests of a process, gone before the end-to-end runs start theirs."""
    ray.init(
        "local",
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
    from tests.integration.tiny_qwen import save_tiny  # torch and transformers, which not every test needs

    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, seed=1)
    return str(folder)
