"""What several modules of integration tests start from."""

import pytest

from tests.integration.tiny_qwen import save_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random Qwen2 model."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, seed=1)
    return str(folder)
