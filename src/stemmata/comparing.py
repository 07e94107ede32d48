"""Comparing: the part of the facade that tells what differs, where and how much. Owns what people call for
that; how each part is compared is said in `compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, overload

from stemmata.catalog import queries
from stemmata.deferred import deferred
from stemmata.errors import InvalidArgument
from stemmata.names import name_key
from stemmata.upkeep import Target, Upkeep
from stemmata.version import Version

if TYPE_CHECKING:
    from stemmata import milestones, weighing
    from stemmata.catalog import declared, kinship
    from stemmata.compare import diff, many, readings
    from stemmata.compare.diff import Diff
    from stemmata.compare.many import Comparison
    from stemmata.compare.readings import Point, Reading
    from stemmata.compare.sides import Side
    from stemmata.histories import blame as blaming
    from stemmata.histories import lineage as lineages
    from stemmata.histories.blame import Blame
    from stemmata.histories.lineage import Lineage
else:
    declared = deferred("stemmata.catalog.declared")
    diff = deferred("stemmata.compare.diff")
    kinship = deferred("stemmata.catalog.kinship")
    many = deferred("stemmata.compare.many")
    milestones = deferred("stemmata.milestones")
    readings = deferred("stemmata.compare.readings")
    blaming = deferred("stemmata.histories.blame")
    lineages = deferred("stemmata.histories.lineage")
    weighing = deferred("stemmata.weighing")

Progress = Callable[[int], None]


class Comparing(Upkeep):
    """What `Repository` is made on, above its upkeep."""

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
        )

    # --- over a history ---------------------------------------------------------------------

    def lineage(self, of: Target | None = None) -> Lineage:
        """Which version came from which: of a version, of a model, or (None) of all models.

        Of a version it is what it came from and what came from it; of a model its visible versions and what
        they came from, other models' versions and bases too. A bare model name is the model;
        `model@latest` its newest version. Deleted versions stay where something came from them.
        Raises ModelNotFound, VersionNotFound, InvalidReference.
        """
        self._session.refresh()
        if of is None:
            return lineages.of_all(self._session)
        if isinstance(of, str):
            known = queries.models(self._session.catalog.connection)
            if any(model.key == name_key(of) for model in known):
                return lineages.of_model(self._session, name_key(of))
        return lineages.of_version(self._session, self._session.row(self.get(of).id))

    def blame(
        self,
        version: Target,
        pattern: str | None = None,
        *,
        most: bool = False,
        at_least: float = 0.0,
        weights: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Blame:
        """Which version last moved each tensor of this one, and by how much; `layers` of it tells the same
        layer by layer. It goes back through first parents.

        `pattern`: only tensors that it fits: a glob over the whole name, or whole parts of it, as in
        "layer.3" or "q_proj". `most`: the version that moved it the furthest, by the L2 norm of the change.
        `at_least`: smaller changes do not count; a share of the tensor's norm before, 0.01 for 1 %.

        No weights are read: what was kept at the saves tells. Where a version has kept nothing, its list
        of tensors tells which moved, not how far; with `weights` those are read, and `progress` gets the
        bytes of each piece. Raises TensorNotInVersion, VersionNotFound, Damage, InvalidArgument.
        """
        if not at_least >= 0:
            raise InvalidArgument(argument="at_least", reason=f"{at_least} is no share of a norm")
        row = self._session.row(self.get(version).id)
        return blaming.blame(
            self._session,
            row,
            pattern,
            most=most,
            at_least=at_least,
            weights=weights,
            progress=progress,
        )
