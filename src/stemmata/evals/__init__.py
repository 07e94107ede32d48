"""Evals: what a version did on each example of a benchmark, kept with it and compared with another's.

Owns how examples lie in the store and how those of two versions are matched. Knows no model and runs none.
"""

from __future__ import annotations

from stemmata.evals.comparing import EvalDiff, diff_evals
from stemmata.evals.reading import Eval, evals_of, examples_of, read_lines, with_examples
from stemmata.evals.storing import Examples, add_eval

__all__ = [
    "Eval",
    "EvalDiff",
    "Examples",
    "add_eval",
    "diff_evals",
    "evals_of",
    "examples_of",
    "read_lines",
    "with_examples",
]
