"""Several versions side by side: what varies among them. Owns the table of that; equal things are counted."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from stemmata.compare import lora
from stemmata.compare.environment import KINDS, Item, items, ordered
from stemmata.compare.readings import Point, Reading
from stemmata.compare.records import Way, about_of, config_of, data_of, differing_data, equal
from stemmata.compare.sides import Side
from stemmata.compare.tensors import tensors_of
from stemmata.deferred import deferred
from stemmata.errors import MissingExtra
from stemmata.ids import VersionId
from stemmata.metricnames import by_interest
from stemmata.records import Value

if TYPE_CHECKING:
    from stemmata.compare import paged
    from stemmata.pictures.parallel import Parallel
else:
    paged = deferred("stemmata.compare.paged")


@dataclass(frozen=True, slots=True)
class Row:
    """One key and its value in each version, in their order; None too where a version lacks it (`absent`)."""

    key: str
    values: tuple[Value, ...]
    absent: tuple[int, ...] = ()
    """Places of the versions that have no such key."""


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric and its value in each version; None where it is absent."""

    key: str
    values: tuple[float | None, ...]
    direction: str | None = None
    """min: less is better; max: more is; None where that cannot be told."""
    differing_data: str | None = None
    """Why they may not compare: some are known to be measured on other data."""

    @property
    def same(self) -> bool:
        return all(equal(value, self.values[0]) for value in self.values)

    @property
    def best(self) -> tuple[int, ...]:
        """Places of the best value, several where they tie; none where all have the same, or none is best."""
        known = [v for v in self.values if v is not None and not math.isnan(v)]
        if self.direction is None or len(set(known)) < 2:
            return ()
        best = min(known) if self.direction == "min" else max(known)
        return tuple(place for place, value in enumerate(self.values) if value == best)

    def to_dict(self) -> dict[str, Any]:
        return {
            "values": list(self.values),
            "direction": self.direction,
            "best": list(self.best),
            "differing_data": self.differing_data,
        }


@dataclass(frozen=True, slots=True)
class Table:
    """The keys whose values are not the same in all versions."""

    rows: tuple[Row, ...] = ()
    same: int = 0
    """How many keys have one value in all."""

    def __bool__(self) -> bool:
        return bool(self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {
            "different": {row.key: list(row.values) for row in self.rows},
            "absent": {row.key: list(row.absent) for row in self.rows if row.absent},
            "same": self.same,
        }


Part = Literal["config", "data", "about", "environment", "lora", "weights"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What varies among several versions. Each table is false where nothing does."""

    ids: tuple[VersionId, ...]
    labels: tuple[str, ...]
    metrics: tuple[MetricRow, ...]
    """Every metric that any version has, by interest; equal ones too."""
    config: Table
    data: Table
    about: Table
    """Kind, run, step, base, author, message."""
    environment: Table
    """Packages and the machine, the most important first; rows are named `kind:name`."""
    lora: Table
    """Rank, alpha, targets, … as the weights tell them."""
    weights: Table
    """Tensors, elements, their types, the bytes of all files, and how many tensors are those of the first."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Kinds of provenance that some version does not tell, and why."""
    point: Point | None = None
    """The step or epoch at which `metrics` are; None: at each version's end."""
    readings: tuple[Reading, ...] | None = None
    """Where the metrics at `point` stand, or why there are none."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tables(self) -> dict[Part, Table]:
        """By name, in the order in which people want them."""
        return {
            "lora": self.lora,
            "config": self.config,
            "data": self.data,
            "about": self.about,
            "environment": self.environment,
            "weights": self.weights,
        }

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        sides = zip(self.ids, self.labels, strict=True)
        return {
            "versions": [{"id": each.hex, "name": label} for each, label in sides],
            "metrics": {row.key: row.to_dict() for row in self.metrics},
            **{name: table.to_dict() for name, table in self.tables.items()},
            "unknown": dict(self.unknown),
            "readings": [r.to_dict() for r in self.readings] if self.readings is not None else None,
        }

    def parallel(self) -> Parallel:
        """The settings that vary against the metric of most interest, a line for each version."""
        return paged.parallel(self)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A page that needs no network and no other file. Raises PictureNotWritten."""
        return paged.page_of_many(self).to_html(path)

    def _repr_html_(self) -> str:
        return paged.snippet_of_many(self)

    def to_pandas(self) -> Any:
        """A DataFrame: one row a version, indexed by its name; metrics, then what differs as `config.r`, ….

        Raises MissingExtra without pandas.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise MissingExtra(feature="to_pandas()", package="pandas", extra="pandas") from error
        columns: dict[str, Sequence[Value]] = {"id": [each.short for each in self.ids]}
        columns |= {row.key: row.values for row in self.metrics}
        for name, table in self.tables.items():
            columns |= {f"{name}.{row.key}": row.values for row in table.rows}
        return pandas.DataFrame(columns, index=pandas.Index(self.labels, name="version"))


def compare_many(sides: Sequence[Side], way: Way, primary: str | None = None) -> Comparison:
    """Compare versions by their records, trees and what was kept of the environment. Reads no weights."""
    environments, unknown = _environments(sides)
    metrics = by_interest({key: None for side in sides for key in side.metrics}, primary)
    return Comparison(
        ids=tuple(side.id for side in sides),
        labels=tuple(side.label for side in sides),
        metrics=tuple(
            MetricRow(
                key,
                tuple(side.metrics.get(key) for side in sides),
                way(key),
                differing_data(key, [side.datasets for side in sides]),
            )
            for key in metrics
        ),
        config=table([config_of(side.record) for side in sides]),
        data=table([data_of(side.record) for side in sides]),
        about=table([about_of(side.record) for side in sides]),
        environment=environments,
        lora=table([_lora(side) for side in sides]),
        weights=table(_weights(sides)),
        unknown=unknown,
    )


def table(sides: Sequence[Mapping[str, Value]], order: Iterable[str] | None = None) -> Table:
    """The keys that are not the same in all of `sides`, by name or in the `order` given."""
    keys = order if order is not None else sorted({key for side in sides for key in side})
    rows, same = [], 0
    for key in keys:
        values = tuple(side.get(key) for side in sides)
        absent = tuple(place for place, side in enumerate(sides) if key not in side)
        if not absent and all(equal(value, values[0]) for value in values):
            same += 1
        else:
            rows.append(Row(key, values, absent))
    return Table(tuple(rows), same)


def _lora(side: Side) -> dict[str, Value]:
    facts = lora.facts(side.tree, side.read)
    if facts is None:
        return {}
    told = facts.to_dict()
    kept = ("method", "rank", "alpha", "targets", "modules", "dora", "rslora", "parameters", "others")
    return {key: told[key] for key in kept if told.get(key) not in (None, [], (), False)}


def _weights(sides: Sequence[Side]) -> list[dict[str, Value]]:
    found: list[dict[str, Value]] = []
    first: set[tuple[str, str, tuple[int, ...], tuple[str, ...]]] | None = None
    for side in sides:
        tensors = list(tensors_of(side.tree))
        known = {(t.name, t.dtype, t.shape, t.objects) for t in tensors}
        row: dict[str, Value] = {"bytes": side.record.content.bytes, "files": side.record.content.files}
        if tensors:
            row |= {
                "tensors": len(tensors),
                "elements": sum(prod(t.shape) for t in tensors),
                "types": ", ".join(sorted({t.dtype for t in tensors})),
            }
        if first is None:
            first = known
        if first:
            row["tensors as in a"] = len(known & first)
        found.append(row)
    return found


def _environments(sides: Sequence[Side]) -> tuple[Table, dict[str, str]]:
    """Among the versions that tell theirs; each object is read once."""
    unknown: dict[str, str] = {}
    rows: list[tuple[Item, Row]] = []
    same = 0
    for kind in KINDS:
        told, why = _told(sides, kind)
        if why:
            unknown[kind] = why
        order = ordered({item for own in told.values() for item in own})
        names = {f"{item.kind}:{item.name}": item for item in order}
        named = [{f"{item.kind}:{item.name}": v for item, v in own.items()} for own in told.values()]
        found = table(named, names)
        same += found.same
        places = list(told)
        rows += [(names[row.key], _spread(row, places, len(sides))) for row in found.rows]
    place = {item: number for number, item in enumerate(ordered(item for item, _ in rows))}
    rows.sort(key=lambda row: place[row[0]])
    return Table(tuple(row for _, row in rows), same), unknown


def _told(sides: Sequence[Side], kind: str) -> tuple[dict[int, dict[Item, Value]], str]:
    """By the versions' places what they tell, and why others do not."""
    read: dict[str, dict[Item, Value]] = {}
    told: dict[int, dict[Item, Value]] = {}
    reasons: dict[str, list[str]] = {}
    for place, side in enumerate(sides):
        digest = side.record.provenance.get(kind, "")
        try:
            if digest not in read or kind in side.redacted:
                read[digest] = items({kind: side.kept(kind)})
            told[place] = read[digest]
        except (LookupError, ValueError) as error:
            reasons.setdefault(str(error) or "not kept", []).append(letter(place))
    if not told:
        reasons.pop("not kept", None)
    return told, "; ".join(f"{', '.join(letters)}: {why}" for why, letters in reasons.items())


def _spread(row: Row, places: Sequence[int], count: int) -> Row:
    """A row of some versions as one of all."""
    values: list[Value] = [None] * count
    for place, value in zip(places, row.values, strict=True):
        values[place] = value
    lacking = {places[each] for each in row.absent} | (set(range(count)) - set(places))
    return Row(row.key, tuple(values), tuple(sorted(lacking)))


def letter(place: int) -> str:
    """What the version at this place is called in a table: a, b, …, z, aa, ab, …"""
    name = ""
    place += 1
    while place:
        place, digit = divmod(place - 1, 26)
        name = chr(ord("a") + digit) + name
    return name
