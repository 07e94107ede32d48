"""What every test has: the helpers of this folder on the path, and hypothesis without deadlines."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from warm import WarmPython

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

# Timing is no property of the code under test, and machines of a CI are shared.
settings.register_profile("stemmata", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("stemmata"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "stemmata"))

# Started by nohup, or by a CI that does as it does, children would inherit a hangup that is ignored.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# The same of an interrupt, which a shell's background jobs ignore.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Nothing of a test stays in the user's cache, and nothing there decides how a test ends.
_CACHE = tempfile.TemporaryDirectory(prefix="stemmata-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name


def pytest_collection_finish() -> None:
    """Keep what was imported out of each later look for garbage.

    Every training begins with such a look, and that at torch and transformers takes a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmPython]:
    """For scripts that train in processes of their own."""
    from warm import TRAINING, WarmPython

    made = WarmPython(*TRAINING)
    yield made
    made.close()


@pytest.fixture(scope="session")
def storing() -> Iterator[WarmPython]:
    """For scripts that save and read in processes of their own."""
    from warm import STORING, WarmPython

    made = WarmPython(*STORING)
    yield made
    made.close()
