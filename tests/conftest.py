"""What several test files need."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def full_data() -> Path:
    """The folder of the full datasets; tests that use it are marked `full_data`."""
    folder = os.environ.get("FOVEAL_DATA")
    if not folder:
        pytest.skip("FOVEAL_DATA is not set: it names the folder of the full datasets")
    return Path(folder)
