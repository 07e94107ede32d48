"""How long a campaign of random cases is: short in every run, long in scripts/test-slow."""

from __future__ import annotations

import os

LONG = os.environ.get("STEMMATA_TEST_LARGE") == "1"


def cases(short: int, long: int) -> int:
    """How many to try."""
    return long if LONG else short
