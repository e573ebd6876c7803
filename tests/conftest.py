"""What all tests share: how hypothesis behaves, and where the shared data folder is."""

from __future__ import annotations

import os

# before numpy is imported: two pytest workers with two BLAS threads each spend their time waiting for one another
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "locomass",
    deadline=None,  # the first example of a kernel compiles it
    derandomize=True,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("locomass")


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory):
    """A folder for the key with which batches are signed, so that tests leave the user's alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden cohorts and real data; tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("LOCOMASS_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"no shared data folder at {folder}; set LOCOMASS_SHARED")
    return folder
