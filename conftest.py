"""What the tests of micraframe and of its plugins share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run: what passed today passes tomorrow. HYPOTHESIS_PROFILE=explore looks for more.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(scope="session", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let studies, those in other processes included, keep unfinished trainings apart from the user's."""
    os.environ["MICRAFRAME_SCRATCH"] = str(tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real images, or skip the test."""
    folder = Path(os.environ.get("MICRAFRAME_DATA", Path(__file__).parents[1] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is not there; set MICRAFRAME_DATA")
    return folder
