"""Logged: which of a Lightning trainer's metrics are whose.

`trainer.callback_metrics` holds the last value of everything that was ever logged. A value that was
put there since an epoch began is another object than the one before: so what an epoch logged is told from
what is left of earlier ones, and a validation's metrics from the training's. Owns that, and that a version
gets metrics of its own step only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stemmata.arguments import is_key
from stemmata.hf.facts import leave_out
from stemmata.hf.recorder import Saved


class Logged:
    """The metrics of one training.

    Every process looks at `callback_metrics` whenever one does: to compute a value may be a collective.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}
        self._before_validation: dict[str, Any] = {}
        self._of_validation: set[str] = set()
        self._validated: tuple[int, dict[str, float]] = (-1, {})
        self._told: dict[str, Any] = {}

    def news(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """What was logged since this was asked last: a row of the log."""
        found = _numbers(_new(metrics, self._told))
        self._told = dict(metrics)
        return found

    def begin(self, metrics: Mapping[str, Any]) -> None:
        """An epoch begins: what is there now is of earlier ones."""
        self._before = dict(metrics)

    def begin_validation(self, metrics: Mapping[str, Any]) -> None:
        self._before_validation = dict(metrics)

    def end_validation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """What the validation of this step found is there now."""
        found = _numbers(_new(metrics, self._before_validation))
        self._of_validation |= found.keys()
        known = self._validated[1] if self._validated[0] == step else {}
        self._validated = (step, {**known, **found})

    def leave_validation(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """What the validation found, of other weights than these: no version of this step gets it."""
        found = _numbers(_new(metrics, self._before_validation))
        self._of_validation |= found.keys()
        return found

    def at(self, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        """What this epoch's training logged so far, and what a validation of this very step found."""
        found = _numbers(_new(metrics, self._before))
        logged = {name: value for name, value in found.items() if name not in self._of_validation}
        return {**logged, **self.validated(step)}

    def validated(self, step: int) -> dict[str, float]:
        """What validations of this step found."""
        return self._validated[1] if self._validated[0] == step else {}


def news(version: Saved, metrics: Mapping[str, float]) -> dict[str, float]:
    """Those of `metrics` that the version was not told; it is told now."""
    found = {k: v for k, v in metrics.items() if k not in version.told or not _same(version.told[k], v)}
    version.told.update(found)
    return found


def _new(metrics: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if value is not before.get(name)}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """As numbers; what is none, or more than one, is no metric. One under a name that no version could have
    is left out and told once: it is not to cost the others."""
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if getattr(value, "numel", lambda: 1)() != 1:
            continue
        if not is_key(name):
            leave_out(repr(name)[:80])
            continue
        try:
            numbers[str(name)] = float(value)
        except (TypeError, ValueError):
            continue
    return numbers


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))
