"""What the tests of the paper's studies share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real images, or skip the test."""
    folder = Path(os.environ.get("MICRAFRAME_DATA", Path(__file__).parents[4] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is not there; set MICRAFRAME_DATA")
    return folder
