"""Recorded: one fact that two captures tell differently. Owns the ranks.

`making` and `computing` find such facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stemmata.records import Value, store_value

KINDS = (
    "seed", "data", "base", "code", "argument", "class", "switch", "package", "hardware", "python",
    "variable", "system", "command",
)  # fmt: skip
"""What can differ."""

# What is computed: from any of these another model comes.
SEED, DATA, BASE, CODE, ARGUMENT, CLASS = 0, 10, 20, 30, 40, 50
GENERATOR = 60
"""A generator's state when the training began, where no seed differs."""
# How it is computed: sums in another order, other kernels.
SWITCH = 100
PACKAGE = 200
"""Packages and the machine, by `compare.environment.importance`, below 800."""
VARIABLE = 300
HELD_OUT = 400
"""Data that is not trained on: it decides which epoch is the best."""
COMMAND = 900
OTHER = 1000
"""Packages that compute nothing by themselves, as far as is known; the system."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`before`: of the original; `after`: of the copy; None on the side that has none."""

    kind: str
    name: str
    before: Value
    after: Value
    rank: int = OTHER
    aside: str = ""
    """Why it cannot have changed a number; empty where it can."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "before": store_value(self.before),
            "after": store_value(self.after),
            "aside": self.aside,
        }
