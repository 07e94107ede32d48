"""Comparing: the part of the facade that tells what differs, where and how much. Owns what people call for
that; how each part is compared is said in `compare`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from stemmata.catalog import queries
from stemmata.deferred import deferred
from stemmata.errors import InvalidArgument
from stemmata.names import name_key
from stemmata.upkeep import Target, Upkeep
from stemmata.version import Version

if TYPE_CHECKING:
    from stemmata import weighing
    from stemmata.compare import diff
    from stemmata.compare.diff import Diff, Side
    from stemmata.histories import blame as blaming
    from stemmata.histories import lineage as lineages
    from stemmata.histories.blame import Blame
    from stemmata.histories.lineage import Lineage
else:
    diff = deferred("stemmata.compare.diff")
    blaming = deferred("stemmata.histories.blame")
    lineages = deferred("stemmata.histories.lineage")
    weighing = deferred("stemmata.weighing")


class Comparing(Upkeep):
    """What `Repository` is made on, above its upkeep."""

    def diff(
        self, a: Target, b: Target, *, weights: bool = True, progress: Callable[[int], None] | None = None
    ) -> Diff:
        """What differs between two versions: config, metrics, data, files, tensors, LoRA.

        `weights`: also how far each tensor moved. Of a version and its parent that is known since it was
        saved; of other two the tensors that differ are read, and `progress` gets the bytes of each piece.
        """
        sides = self.get(a), self.get(b)
        self._session.refresh()
        found = diff.compare(*(self._side(side, weights=weights) for side in sides))
        if not weights or not found.tensors:
            return found
        rows = [self._session.row(side.id) for side in sides]
        return replace(
            found, weights=weighing.weigh(self._session, rows[0], rows[1], found.tensors, progress)
        )

    def _side(self, version: Version, *, weights: bool) -> Side:
        self._session.row(version.id)  # one in hand may have been deleted since
        return diff.Side(
            id=version.id,
            label=f"{version.model}@{version.name}",
            record=version.record,
            redacted={gone.item: gone.at for gone in version.redactions},
            metrics=version.metrics,
            tree=version.tree(),
            read=version.read,
            fill=version.object_filler() if weights else None,
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
