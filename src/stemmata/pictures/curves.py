"""Curves: metrics along the trainings, run over run, with what each version is called. Owns their axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from stemmata.logrows import Logged, between
from stemmata.metricnames import by_interest, is_aside
from stemmata.pictures import colours, words
from stemmata.pictures.picture import Picture, Table
from stemmata.pictures.seen import Runs, Seen, runs_of

Axis = Literal["epoch", "step", "version"]
_PANELS = 6
_RUNS = 12
_LOGGED = 600
"""Points of a line between its versions, of more the extremes."""
_LOG_FROM = 50.0
"""Greatest by least value from which the axis is a logarithm."""


@dataclass(frozen=True, slots=True)
class Point:
    """A version on a curve. `value` may be NaN or infinite: then the curve has a gap there."""

    x: float
    value: float
    seen: Seen

    @property
    def marks(self) -> tuple[str, ...]:
        """Aliases and tags, as people read them."""
        return (*self.seen.aliases, *(f"#{tag}" for tag in self.seen.tags))


@dataclass(frozen=True)
class Line:
    """One run: its versions, and what its training logged between them, as far as that was kept."""

    run: str
    colour: int
    points: tuple[Point, ...]
    logged: tuple[tuple[float, float], ...] = ()

    @cached_property
    def drawn(self) -> tuple[tuple[float, float], ...]:
        """What the line goes through."""
        versions = {point.x: point.value for point in self.points}
        return tuple(sorted({**dict(self.logged), **versions}.items()))


@dataclass(frozen=True)
class Panel:
    """One metric of all runs."""

    metric: str
    way: str | None
    """min or max: which is better; None where neither is."""
    lines: tuple[Line, ...]

    @cached_property
    def best(self) -> tuple[Line, Point] | None:
        """Where the best value is; None where none is better than another."""
        found = [(line, p) for line in self.lines for p in line.points if math.isfinite(p.value)]
        if self.way is None or len({p.value for _, p in found}) < 2:
            return None
        pick = min if self.way == "min" else max
        return pick(found, key=lambda each: each[1].value)

    @cached_property
    def values(self) -> tuple[float, ...]:
        """All finite ones; also of versions of one place, of which the line goes through one."""
        drawn = [value for line in self.lines for _, value in line.drawn]
        points = [point.value for line in self.lines for point in line.points]
        return tuple(value for value in (*drawn, *points) if math.isfinite(value))

    @cached_property
    def places(self) -> tuple[float, ...]:
        """On the axis below."""
        return tuple(x for line in self.lines for x, _ in line.drawn)

    @property
    def log(self) -> bool:
        return bool(self.values) and min(self.values) > 0 and max(self.values) / min(self.values) > _LOG_FROM

    @property
    def broken(self) -> tuple[Point, ...]:
        return tuple(p for line in self.lines for p in line.points if not math.isfinite(p.value))


@dataclass(frozen=True, repr=False)
class Curves(Picture):
    """The metric of most interest first; the best runs in colours of their own."""

    about: str
    """Of what: the model's name."""
    axis: Axis
    panels: tuple[Panel, ...]
    runs: Runs
    left_out: int = 0
    """Versions that have no place on the axis."""
    remarks: tuple[str, ...] = ()
    asked: bool = False
    """Whether the metrics were chosen by whoever wanted the picture."""

    kind = "curves"
    heading = "Metrics of the runs"

    @classmethod
    def make(
        cls,
        about: str,
        versions: Iterable[Seen],
        *,
        metrics: Sequence[str] = (),
        axis: Axis | None = None,
        primary: str | None = None,
        direction: str | None = None,
        remarks: tuple[str, ...] = (),
        logged: Mapping[str, Iterable[Logged]] | None = None,
    ) -> Curves:
        """`metrics` to draw: by default those of most interest. Runs are ranked by the first of them, else by
        `primary`. `logged`: by a run's id what it logged between its versions."""
        given = list(versions)
        ranked = metrics[0] if metrics else primary
        way = direction if ranked == primary else None
        runs = runs_of(given, colours.RUNS, metric=ranked, direction=way)
        chosen = axis or _axis(given)
        told = {run: list(rows) for run, rows in (logged or {}).items()}
        shown = list(dict.fromkeys(metrics)) or _metrics(given, runs.metric, told)
        panels = tuple(p for p in (_panel(runs, metric, chosen, told) for metric in shown) if p.lines)
        if not metrics and (drawn := [p for p in panels if any(len(line.drawn) > 1 for line in p.lines)]):
            panels = tuple(drawn)  # of what a run has once there is no curve
        placed = {p.seen.id for panel in panels for line in panel.lines for p in line.points}
        measured = {v.id for v in given if any(p.metric in v.metrics for p in panels)}
        return cls(about, chosen, panels, runs, len(measured - placed), remarks, bool(metrics))

    # --- words ----------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return not self.panels

    @property
    def title(self) -> str:
        named = words.listed([panel.metric for panel in self.panels], 3) or "no metrics"
        return f"{self.about}: {named}"

    @cached_property
    def finding(self) -> str:
        if not self.panels:
            return "No version has such a metric." if self.asked else "No version has a metric."
        panel = self.panels[0]
        lines = [line for line in panel.lines if line.points]
        versions = words.count(sum(len(line.points) for line in lines), "version")
        among = f"of {versions} in {words.count(len(lines), 'run')}"
        if panel.best is None:
            return f"{panel.metric} {among}."
        line, point = panel.best
        word = "lowest" if panel.way == "min" else "highest"
        told = (
            f"{panel.metric} is {word} in {self.called(line, point)} ({words.number(point.value)}), {among}."
        )
        worse = self.getting_worse()
        if worse:
            told += f" {words.listed(worse, 2)} got worse after the best version."
        return told

    def called(self, line: Line, point: Point) -> str:
        """A version in words: `r8 at epoch 3`."""
        where = f"{self.axis} {words.number(point.x)}" if self.axis != "version" else point.seen.name
        return f"{line.run} at {where}" if self.axis != "version" else where

    def getting_worse(self) -> list[str]:
        """Runs whose last version is worse than an earlier one, in what the first panel shows."""
        panel, found = self.panels[0], []
        for line in panel.lines:
            values = [p.value for p in line.points if math.isfinite(p.value)]
            if panel.way is None or len(values) < 3:
                continue
            best = min(values) if panel.way == "min" else max(values)
            span = max(values) - min(values)
            if span and abs(values[-1] - best) > 0.02 * span and values[-1] != best:
                found.append(line.run)
        return found

    @property
    def notes(self) -> Sequence[str]:
        found = list(self.remarks)
        faint = sum(1 for colour in self.runs.colours.values() if colour < 0)
        if faint:
            best = len(self.runs.colours) - faint
            found.append(f"The {best} best runs are coloured, the other {faint} are grey.")
        if self.left_out:
            many = words.count(self.left_out, "version")
            found.append(f"{many} without {self.axis}: not drawn.")
        for panel in self.panels:
            if panel.broken:
                names = [f"{p.seen.name} ({words.number(p.value)})" for p in panel.broken]
                found.append(f"{panel.metric} is not finite in {words.listed(names)}.")
        return found

    # --- facts ----------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "run": line.run,
                "version": point.seen.name,
                "id": point.seen.id,
                "epoch": point.seen.epoch,
                "step": point.seen.step,
                "metric": panel.metric,
                "value": point.value,
                "aliases": list(point.seen.aliases),
                "tags": list(point.seen.tags),
            }
            for panel in self.panels
            for line in panel.lines
            for point in line.points
        ]

    def tables(self) -> list[Table]:
        """The runs, the best first, with their best value."""
        if not self.panels:
            return []
        panel = self.panels[0]
        if len(panel.lines) < 2:
            return []
        rows, tones = [], {}
        by_run = {line.run: line for line in panel.lines}
        order = [run for run in self.runs.runs if run in by_run]
        for place, run in enumerate(order[:_RUNS]):
            best = self.runs.best_of([p.seen for p in by_run[run].points], panel.metric)
            if best is None:
                rows.append((run, "–", ""))
            else:
                where = best.epoch if self.axis == "epoch" else best.step if self.axis == "step" else None
                rows.append(
                    (run, words.number(best.metrics[panel.metric]), "" if where is None else f"{where:g}")
                )
            tones[place, 0] = f"run{self.runs.colours[run]}" if self.runs.colours[run] >= 0 else "faint"
        left = len(order) - len(rows)
        more = f"and {words.count(left, 'run')} more" if left > 0 else ""
        columns = ("run", panel.metric, self.axis if any(row[2] for row in rows) else "")
        return [Table("Best of each run", columns, tuple(rows), frozenset({1, 2}), more, colours=tones)]

    def text(self, width: int = 100, *, colours: int = 0) -> str:
        from stemmata.pictures.typed import curves

        return curves.lines(self, width, colours)


def _axis(versions: Sequence[Seen]) -> Axis:
    """What most versions with metrics have."""
    measured = [v for v in versions if v.metrics]
    epochs = sum(v.epoch is not None for v in measured)
    steps = sum(v.step is not None for v in measured)
    if max(epochs, steps) * 2 < len(measured) or not measured:
        return "version"
    # Versions between epochs are told apart by either; an epoch is what people speak of.
    return "epoch" if epochs >= steps else "step"


def _metrics(
    versions: Sequence[Seen], first: str | None, logged: Mapping[str, Sequence[Logged]]
) -> list[str]:
    counts: dict[str, int] = {}
    for seen in versions:
        for key in seen.metrics:
            counts[key] = counts.get(key, 0) + 1
    rows = [row.metrics for each in logged.values() for row in each]
    several = {key for key in counts if sum(key in row for row in rows) > 1}
    counts |= {key: max(counts[key], 2) for key in several}
    found = [key for key, count in counts.items() if count > 1 and not is_aside(key)]
    ordered = by_interest(found, first)
    head = [key for key in ordered if key == first]
    rest = [key for key in ordered if key != first]
    return (head + sorted(rest, key=lambda k: (not k.startswith("eval"), -counts[k], k)))[:_PANELS]


def _panel(runs: Runs, metric: str, axis: Axis, logged: Mapping[str, Sequence[Logged]]) -> Panel:
    lines = []
    for label, versions in runs.runs.items():
        points = []
        for number, seen in enumerate(versions, 1):
            x = seen.epoch if axis == "epoch" else seen.step if axis == "step" else number
            if x is not None and math.isfinite(x) and metric in seen.metrics:
                points.append(Point(words.drawable(float(x)), words.drawable(seen.metrics[metric]), seen))
        if points:
            points.sort(key=lambda p: p.x)
            # Not beyond the versions: a list may be of how things stood then.
            rows = [row for row in _between(versions, logged) if metric in row.metrics]
            places = [(row.epoch if axis == "epoch" else row.step, row.metrics[metric]) for row in rows]
            path = [(float(x), _number(y)) for x, y in places if x is not None and axis != "version"]
            line = between([(x, y) for x, y in path if math.isfinite(x)], _LOGGED)
            lines.append(Line(label, runs.colours[label], tuple(points), tuple(line)))
    return Panel(metric, runs.way(metric), tuple(lines))


def _between(versions: Sequence[Seen], logged: Mapping[str, Sequence[Logged]]) -> list[Logged]:
    """What a run logged up to the last of its versions."""
    rows = logged.get(versions[0].run_id or "", ())
    last = max((v.step for v in versions if v.step is not None), default=None)
    return [row for row in rows if last is None or row.step <= last]


def _number(value: int | float) -> float:
    try:
        return words.drawable(float(value))
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # an integer that no float holds
