"""What every test shares: deterministic seeds, a cache of its own, and the public sample data where it is present."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Before edgeseg is imported anywhere: tests never touch the user's cache.
_HOME = tempfile.TemporaryDirectory(prefix="edgeseg-tests-")
os.environ["EDGESEG_HOME"] = _HOME.name

# A run in the background ignores Ctrl-C, and so would the commands that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "edgeseg", deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("edgeseg")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public sample data: ``$EDGESEG_SHARED``, else ``../shared/data`` beside the project."""
    configured = os.environ.get("EDGESEG_SHARED")
    path = Path(configured) if configured else ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no sample data at {path}; set EDGESEG_SHARED to the folder that holds camvid, videos, ...")
    return path
