"""Comparing: the part of the facade that tells what differs, where and how much. Owns what people call for
that; how each part is compared is said in `compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, overload

from stemmata.deferred import deferred
from stemmata.errors import InvalidArgument
from stemmata.tracing import Tracing
from stemmata.upkeep import Target
from stemmata.version import Version

if TYPE_CHECKING:
    from stemmata import milestones, weighing
    from stemmata.catalog import declared, kinship
    from stemmata.compare import diff, many, readings
    from stemmata.compare.diff import Diff
    from stemmata.compare.many import Comparison
    from stemmata.compare.readings import Point, Reading
    from stemmata.compare.sides import Side
else:
    declared = deferred("stemmata.catalog.declared")
    diff = deferred("stemmata.compare.diff")
    kinship = deferred("stemmata.catalog.kinship")
    many = deferred("stemmata.compare.many")
    milestones = deferred("stemmata.milestones")
    readings = deferred("stemmata.compare.readings")
    weighing = deferred("stemmata.weighing")

Progress = Callable[[int], None]


class Comparing(Tracing):
    """What `Repository` is made on, above its upkeep and what traces histories."""

    @overload
    def diff(
        self,
        a: Target,
        b: Target,
        *,
        weights: bool = True,
        step: int | None = None,
        epoch: float | None = None,
        progress: Progress | None = None,
    ) -> Diff: ...
    @overload
    def diff(
        self,
        a: Target,
        b: Target,
        c: Target,
        /,
        *more: Target,
        step: int | None = None,
        epoch: float | None = None,
    ) -> Comparison: ...
    def diff(
        self,
        a: Target,
        b: Target,
        *more: Target,
        weights: bool = True,
        step: int | None = None,
        epoch: float | None = None,
        progress: Progress | None = None,
    ) -> Diff | Comparison:
        """What differs between two versions: config, metrics, data, environment, code, tokenizer, files,
        tensors, LoRA. Of three or more a `Comparison`: what varies among them, a column a version.

        `weights`: also how far each tensor moved. Of a version and its parent that is known since it was
        saved; of other two the tensors that differ are read, and `progress` gets the bytes of each piece.

        `step` or `epoch`: metrics as each version's run had them there, from the run's versions and from the
        training's log where one was kept; `readings` says which, or why there are none.

        Raises InvalidArgument for both, and as `get`; Damage where what has to be read is not sound.
        """
        if step is not None and epoch is not None:
            raise InvalidArgument(argument="epoch", reason="a step is asked for already: one of the two")
        point = readings.Point(step, epoch) if step is not None or epoch is not None else None
        versions = [self.get(each) for each in (a, b, *more)]
        self._session.refresh()
        if more:
            return self._compare(versions, point)
        found = self._diff(versions[0], versions[1], point, weights=weights)
        if not weights or not found.tensors:
            return found
        rows = [self._session.row(version.id) for version in versions]
        return replace(
            found, weights=weighing.weigh(self._session, rows[0], rows[1], found.tensors, progress)
        )

    def _diff(self, a: Version, b: Version, point: Point | None, *, weights: bool) -> Diff:
        told = self._readings((a, b), point)
        sides = [
            self._side(version, reading, weights=weights)
            for version, reading in zip((a, b), told or (None, None), strict=True)
        ]
        connection = self._session.catalog.connection
        primary = declared.Primary(connection, b.model)
        return replace(
            diff.compare(sides[0], sides[1], primary.direction),
            kinship=kinship.kinship(connection, a.id, b.id),
            point=point,
            readings=(told[0], told[1]) if told else None,
        )

    def _compare(self, versions: Sequence[Version], point: Point | None) -> Comparison:
        told = self._readings(versions, point)
        sides = [
            self._side(version, told[place] if told else None, weights=False)
            for place, version in enumerate(versions)
        ]
        primary = declared.Primary(self._session.catalog.connection, versions[0].model)
        found = many.compare_many(sides, primary.direction, primary.metric)
        return replace(found, point=point, readings=tuple(told) if told else None)

    def _readings(self, versions: Sequence[Version], point: Point | None) -> list[Reading] | None:
        if point is None:
            return None
        return [milestones.reading(self._session, version, point) for version in versions]

    def _side(self, version: Version, reading: Reading | None, *, weights: bool) -> Side:
        row = self._session.row(version.id)  # one in hand may have been deleted since
        return diff.Side(
            id=version.id,
            label=f"{version.model}@{version.name}",
            record=version.record,
            redacted={gone.item: gone.at for gone in version.redactions},
            metrics=version.metrics if reading is None else reading.metrics,
            tree=version.tree(),
            read=version.read,
            fill=version.object_filler() if weights else None,
            provenance=version.provenance,
            read_object=partial(self._session.read_object, row),
            datasets={key: m.dataset for key, m in version.measurements.items()} if reading is None else {},
        )
