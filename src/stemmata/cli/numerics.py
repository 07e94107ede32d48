"""What a command that only moves bytes spares itself of numpy. Owns the number of its threads."""

from __future__ import annotations

import os

_VARIABLE = "OPENBLAS_NUM_THREADS"


def without_blas() -> None:
    """Let numpy, if it is imported later on, start no threads for linear algebra.

    They look for work for a while before they sleep, and take the processors from the codecs meanwhile. Only
    the system's own environment is told: what is recorded of the environment stays what the user has set. A
    child that is given none would get it, too; the only one of these commands, git, is given one.
    """
    if _VARIABLE not in os.environ:
        os.putenv(_VARIABLE, "1")
