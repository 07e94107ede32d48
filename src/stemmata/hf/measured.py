"""Measured: what a training logged and evaluated, and at which step. Owns which metrics are whose: a
version gets those of its own step, never those of the step before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stemmata.hf import facts
from stemmata.hf.recorder import Saved


class Measured:
    """The last metrics of one training."""

    def __init__(self) -> None:
        self._logged: dict[str, tuple[int, float]] = {}
        """What the training itself logged last under each name, and at which step."""
        self._done = -1
        """The step whose evaluation has told what it found."""
        self._evaluated: tuple[int, dict[str, float]] = (-1, {})

    def logged_since(self, step: int) -> dict[str, float]:
        """What the training logged after a step, of each name the last."""
        return {name: value for name, (at, value) in self._logged.items() if at > step}

    def log(self, step: int, logs: Mapping[str, Any] | None) -> dict[str, float]:
        """Take a log in; what it says of the training itself."""
        found = facts.training_metrics(logs)
        self._logged |= {name: (step, value) for name, value in found.items()}
        # trl adds metrics of an evaluation to its log alone, just before the evaluation's own event.
        self.evaluate(step, {k: v for k, v in facts.metrics(logs).items() if k.startswith("eval_")})
        return found

    def recall(self, state: Any) -> None:
        """Take in what the Trainer's own history has, of a training that goes on."""
        for row in state.log_history or ():
            self.log(int(row.get("step", -1)), row)

    def evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take metrics of an evaluation of this step in. What it logged under a prefix of its own was taken
        for the training's."""
        for name in metrics:
            if self._logged.get(name, (None, None)) == (step, metrics[name]):
                del self._logged[name]
        if metrics:
            self._evaluated = (step, {**self.evaluated(step), **metrics})

    def evaluated(self, step: int) -> dict[str, float]:
        """What evaluations of this step found so far."""
        return self._evaluated[1] if self._evaluated[0] == step else {}

    def end_evaluation(self, step: int) -> None:
        """What is logged of this step's evaluation from now on comes with no event of its own."""
        self._done = step

    def late(self, version: Saved) -> dict[str, float]:
        """What was logged of the evaluation of this version's step after that had told what it found."""
        return self.news(version) if self._done == version.step else {}

    def news(self, version: Saved, fresh: Mapping[str, float] | None = None) -> dict[str, float]:
        """What the last evaluation found and this version, of its step, was not told; it is told now. Of
        `fresh` also what it was told otherwise: of several sets of data all but the first may have been
        logged before."""
        known = {k: v for k, v in self.evaluated(version.step).items() if k not in version.told}
        known |= {k: v for k, v in (fresh or {}).items() if version.told.get(k) != v}
        version.told.update(known)
        return known


def best_step(state: Any) -> int:
    """The step whose weights the Trainer holds for the best."""
    # An evaluation may be the best of all where no checkpoint is written: what is loaded is a checkpoint.
    found = re.search(r"-(\d+)$", str(state.best_model_checkpoint))
    if found:
        return int(found[1])
    return int(state.global_step if state.best_global_step is None else state.best_global_step)


def is_pruned(state: Any) -> bool:
    """Whether a search ends this trial within an evaluation: the Trainer has brought no best weights back.

    A training that comes to its own end logs how long it took before.
    """
    return bool(state.is_hyper_param_search) and not came_to_its_end(state)


def came_to_its_end(state: Any) -> bool:
    """Whether the Trainer has told how long it took, which it does when the best weights are back."""
    rows = [row for row in state.log_history or () if row.get("step") == state.global_step]
    return any("train_runtime" in row for row in rows)


def logged_at(state: Any, step: int) -> tuple[dict[str, float], float | None]:
    """Metrics and epoch that the Trainer's own history has of a step."""
    rows = [row for row in state.log_history or () if row.get("step") == step]
    metrics: dict[str, float] = {}
    for row in rows:
        metrics.update(facts.metrics(row))
    epochs = [row["epoch"] for row in rows if "epoch" in row]
    return metrics, epochs[-1] if epochs else None
