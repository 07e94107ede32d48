"""Parallel: which settings go with which results: an axis for each that varies, a line for each run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from stemmata.pictures import colours, words
from stemmata.pictures.picture import Picture, Table
from stemmata.pictures.seen import Runs, Seen, runs_of

_AXES = 9
"""Besides that of the metric."""
_LINES = 400
_LOG_FROM = 30.0
_FEW = 5
"""Different numbers of a setting up to which each has its own mark."""
UNSET = "not set"
_HOUSEKEEPING = re.compile(
    r"(^|[._])(output_dir|logging_dir|run_name|hub_\w+|project|trackio_\w+|push_to_hub\w*|resume_from\w*"
    r"|overwrite_\w+|logging_\w+|log_level\w*|disable_tqdm|local_rank|ddp_\w+|report_to|save_\w+|eval_steps"
    r"|dataloader_\w+|no_cuda|use_cpu|past_index|deepspeed|debug|length_column_name|include_\w+|base_model\w*"
    r"|parameters|trainable\w*|commit|host\w*|path|name_or_path|_name_or_path|remove_unused_columns)$"
)
_TUNED = (
    r"learning_rate|\blr\b",
    r"lora[._](r|rank)$",
    r"lora[._](lora_)?alpha|lora[._]\w*dropout",
    r"batch_size|num_train_epochs|max_steps",
    r"weight_decay|warmup|optim|scheduler|temperature|\bbeta\b|dropout|max_length|seed",
)
"""What people tune, what they tune most first."""


@dataclass(frozen=True, slots=True)
class AxisOf:
    """One setting. `kind`: number, log, or words, whose `labels` are its places from below."""

    key: str
    kind: Literal["number", "log", "words"]
    low: float
    high: float
    labels: tuple[str, ...] = ()

    def at(self, value: float) -> float:
        """0 to 1."""
        if self.kind == "log":
            # Of each by itself: their ratio may be beyond any float.
            low, high, here = map(math.log, (self.low, self.high, value))
            return (here - low) / (high - low) if high > low else 0.5
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def shown(self, value: float) -> str:
        return self.labels[round(value)] if self.labels else words.number(value)


@dataclass(frozen=True, slots=True)
class Strand:
    """One run: a number for each axis; of words the place of its label."""

    run: str
    version: str
    values: tuple[float, ...]
    result: float
    """The best value of the metric."""


@dataclass(frozen=True, repr=False)
class Parallel(Picture):
    about: str
    metric: str
    way: str | None
    axes: tuple[AxisOf, ...]
    """The last one is the metric's."""
    strands: tuple[Strand, ...]
    """The best first."""
    together: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Settings that differ between just the runs between which one of the axes differs, by its key."""
    left_out: tuple[str, ...] = ()
    """Settings that vary too."""

    kind = "parallel"
    heading = "Settings that vary"

    @classmethod
    def make(
        cls,
        about: str,
        versions: Iterable[Seen],
        *,
        metric: str | None = None,
        direction: str | None = None,
    ) -> Parallel:
        """A line for each run, at its best version; for each version where there are no runs."""
        given = list(versions)
        runs = runs_of(given, colours.RUNS, metric=metric, direction=direction)
        chosen = runs.metric or ""
        known = [(run, best) for run, best in _picked(runs) if best is not None]
        picked = [(run, v) for run, v in known if math.isfinite(words.drawable(v.metrics[chosen]))][:_LINES]
        if len(picked) < 2 or not chosen:
            return cls(about, chosen, runs.way(chosen) if chosen else None, (), ())
        keys, together = _varying([seen.config for _, seen in picked])
        axes, columns = [], []
        for key in keys[:_AXES]:
            axis, column = _axis(key, [seen.config.get(key, UNSET) for _, seen in picked])
            axes.append(axis)
            columns.append(column)
        results = [words.drawable(seen.metrics[chosen]) for _, seen in picked]
        last = _numbers(chosen, results)
        strands = tuple(
            Strand(run, seen.name, (*(column[k] for column in columns), results[k]), results[k])
            for k, (run, seen) in enumerate(picked)
        )
        with_others = tuple((key, tuple(together[key])) for key in keys[:_AXES] if together[key])
        left = tuple(keys[_AXES:])
        return cls(about, chosen, runs.way(chosen), (*axes, last), strands, with_others, left)

    # --- values ---------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return len(self.axes) < 2 or len(self.strands) < 2

    def goodness(self, strand: Strand) -> float:
        """0 for the worst result, 1 for the best."""
        share = self.axes[-1].at(strand.result)
        return 1 - share if self.way == "min" else share

    # --- words ----------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        return f"{self.about}: settings against {self.metric}"

    @cached_property
    def finding(self) -> str:
        if self.is_empty:
            return "No two runs with a metric differ in a setting."
        best = self.strands[0]
        named = [
            f"{axis.key} {axis.shown(value)}"
            for axis, value in zip(self.axes[:-1], best.values, strict=False)
        ]
        told = f"Best is {best.run} ({self.metric} {words.number(best.result)}): {', '.join(named[:4])}"
        return f"{told}{' …' if len(named) > 4 else '.'}"

    @property
    def notes(self) -> Sequence[str]:
        found = [f"With {key} goes {words.listed(others, 6)}." for key, others in self.together]
        if self.left_out:
            found.append(f"These vary too: {words.listed(self.left_out, 8)}.")
        return found

    # --- facts ----------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "run": strand.run,
                "version": strand.version,
                **{
                    axis.key: axis.shown(value) if axis.labels else value
                    for axis, value in zip(self.axes, strand.values, strict=True)
                },
            }
            for strand in self.strands
        ]

    def tables(self) -> list[Table]:
        return []

    def text(self, width: int = 100, *, colours: int = 0) -> str:
        from stemmata.pictures.typed import parallel

        return parallel.lines(self, width, colours)


def _picked(runs: Runs) -> list[tuple[str, Seen | None]]:
    if len(runs.runs) > 1:
        return [(run, runs.best_of(versions)) for run, versions in runs.runs.items()]
    every = [v for versions in runs.runs.values() for v in versions]
    found = [v for v in every if runs.best_of([v]) is not None]
    key = runs.metric or ""
    found.sort(key=lambda v: v.metrics[key], reverse=runs.way(key) == "max")
    return [(v.name, v) for v in found]


def _varying(configs: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, list[str]]]:
    """Keys with more than one value, those first that people tune; none that only tells runs apart. By key,
    others that divide the runs in the very same way."""
    keys = dict.fromkeys(key for config in configs for key in config)
    found = []
    for key in keys:
        values = [_text(config.get(key, UNSET)) for config in configs]
        different = len(set(values))
        spoken = any(isinstance(c.get(key), str) for c in configs)
        unique = spoken and different == len(values) > 3
        long = max(map(len, values)) > 80
        if different > 1 and not unique and not long and not _HOUSEKEEPING.search(key):
            found.append(key)
    found.sort(key=lambda k: (_tuned(k), k))
    by_division: dict[tuple[int, ...], str] = {}
    together: dict[str, list[str]] = {}
    for key in found:
        values = [_text(config.get(key, UNSET)) for config in configs]
        first = by_division.setdefault(tuple(values.index(v) for v in values), key)
        together.setdefault(first, []).extend([key] if key != first else [])
    return list(together), together


def _tuned(key: str) -> int:
    return next((at for at, pattern in enumerate(_TUNED) if re.search(pattern, key)), len(_TUNED))


def _axis(key: str, values: Sequence[Any]) -> tuple[AxisOf, list[float]]:
    if all(_is_number(v) for v in values):
        numbers = [words.drawable(v) for v in values]
        if len(different := sorted(set(numbers))) > _FEW:
            return _numbers(key, numbers), numbers
        # A few that were tried stand at equal distances, each with its number.
        shown = tuple(words.number(v) for v in different)
        if len(set(shown)) == len(different):
            return _labelled(key, shown), [float(different.index(v)) for v in numbers]
        return _numbers(key, numbers), numbers
    texts = [_text(v) for v in values]
    labels = tuple(sorted(set(texts), key=lambda t: (t != UNSET, t)))
    return _labelled(key, labels), [float(labels.index(t)) for t in texts]


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(words.drawable(value))


def _labelled(key: str, labels: tuple[str, ...]) -> AxisOf:
    return AxisOf(key, "words", 0.0, float(max(1, len(labels) - 1)), labels)


def _numbers(key: str, values: Sequence[float]) -> AxisOf:
    low, high = min(values), max(values)
    log = low > 0 and high / low > _LOG_FROM
    return AxisOf(key, "log" if log else "number", low, high)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return words.number(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
