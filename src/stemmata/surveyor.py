"""Surveyor: statistics of a version's tensors, learnt while they are stored. Owns which tensor of the parent
each is held against.

A tensor's counterpart has its name and its shape; its type may be another, where both are floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod

import msgspec

from stemmata.catalog import queries
from stemmata.codecs.dtypes import dtype_of
from stemmata.compare import statistics
from stemmata.compare.statistics import TensorStatistics
from stemmata.compare.tensors import numbered
from stemmata.containers.base import PlannedSegment
from stemmata.describe import is_of_training
from stemmata.errors import StemmataError
from stemmata.ids import Digest, PackName, VersionId
from stemmata.objects import Look
from stemmata.records import Record, Statistics
from stemmata.session import Session
from stemmata.trees import Tree, TreeFile

_NAMED = 20
"""Tensors that are named in a record as grown; the table tells of all."""


class _Counterpart(msgspec.Struct, frozen=True):
    shape: tuple[int, ...]
    dtype: str | None
    objects: Sequence[str]
    row: TensorStatistics | None

    @property
    def is_float(self) -> bool:
        return dtype_of(self.dtype or "").is_float


class _Tensor(msgspec.Struct):
    """One tensor on its way: its running number and what is asked of its pieces."""

    number: int
    name: str
    count: int
    is_float: bool
    looks: list[Look]
    before: TensorStatistics | None


class Surveyor(msgspec.Struct):
    """Asks for the tensors of one new version, in the order of its files."""

    against: VersionId | None = None
    tree: Tree | None = None
    """Its files."""
    _packs: Sequence[PackName] = ()
    _before: dict[str, _Counterpart] = msgspec.field(default_factory=dict)
    _asked: list[_Tensor] = msgspec.field(default_factory=list)
    _next: int = 0

    @classmethod
    def of(cls, session: Session, parents: Sequence[VersionId]) -> Surveyor:
        """Holding against the first parent, if there is one that can be read."""
        row = queries.version_by_id(session.catalog.connection, parents[0]) if parents else None
        if row is None:
            return cls()
        try:
            tree, packs = session.tree(row), session.packs(row)
        except StemmataError:
            return cls()  # damaged: less is told; nothing else depends on it
        known = statistics_of(session, session.record(row), packs)
        before: dict[str, _Counterpart] = {}
        for number, path, segment in numbered(tree):
            found = _Counterpart(
                tuple(segment.shape or ()), segment.dtype, segment.objects, known.get(number)
            )
            # Its own file's first: a name may occur in several.
            before[f"{path}:{segment.name}"] = found
            before.setdefault(f":{segment.name}", found)
        return cls(row.id, tree, packs, before)

    def _counterpart(self, path: str, name: str) -> _Counterpart | None:
        """The parent's tensor of that name: its own file's first."""
        return self._before.get(f"{path}:{name}") or self._before.get(f":{name}")

    def looks(self, path: str, segment: PlannedSegment) -> list[Look | None]:
        """What is to be learnt of each piece of a segment. To be asked of every segment, in their order."""
        if segment.name is None:
            return [None] * len(segment.pieces)
        number, self._next = self._next, self._next + 1
        if segment.shape is None or is_of_training(path):
            return [None] * len(segment.pieces)
        looks = [Look() for _ in segment.pieces]
        found = self._counterpart(path, segment.name)
        before = None
        if found is not None and found.shape == segment.shape and len(found.objects) == len(looks):
            before = found.row
            for look, digest in zip(looks, found.objects, strict=True):
                look.against, look.packs = Digest.parse(digest), self._packs
                look.like = dtype_of(found.dtype or "")
                look.known = before is not None and len(looks) == 1
        is_float = dtype_of(segment.dtype).is_float
        self._asked.append(_Tensor(number, segment.name, prod(segment.shape), is_float, looks, before))
        return list(looks)

    def unmoved(self, path: str, file: TreeFile) -> Callable[[], None] | None:
        """What to call in place of `looks` for a file whose content is stored already; None where something
        of its tensors is still to be learnt. Nothing has changed then."""
        asked: list[_Tensor] = []
        next_number = self._next
        for segment in file.segments:
            if segment.name is None:
                continue
            number, next_number = next_number, next_number + 1
            if segment.shape is None or is_of_training(path):
                continue
            shape = tuple(segment.shape)
            found = self._counterpart(path, segment.name)
            if (
                found is None
                or found.row is None
                or found.shape != shape
                or found.dtype != segment.dtype
                or list(found.objects) != segment.objects
            ):
                return None
            is_float = dtype_of(segment.dtype or "").is_float
            looks = [Look(same=True, known=True) for _ in segment.objects]
            asked.append(_Tensor(number, segment.name, prod(shape), is_float, looks, found.row))

        def take() -> None:
            self._next = next_number
            self._asked += asked

        return take

    def table(self) -> dict[int, TensorStatistics]:
        """By running number, once everything is stored."""
        rows = ((tensor.number, _row(tensor)) for tensor in self._asked)
        return {number: row for number, row in rows if row is not None}

    def summary(self, digest: str, rows: dict[int, TensorStatistics]) -> Statistics:
        """What a record says of the table that is stored as `digest`."""
        # Whole numbers count and point, beyond any weight; of what has no finite number there is NaN.
        before = [b.row for b in self._before.values() if b.row is not None and b.is_float]
        largest = max((max(abs(row.min), abs(row.max)) for row in before if row.max == row.max), default=0.0)
        asked = (tensor for tensor in self._asked if tensor.is_float and tensor.number in rows)
        named = ((tensor.name, rows[tensor.number]) for tensor in asked)
        compared = any(row.movement is not None for row in rows.values())
        return Statistics(
            digest=digest,
            against=self.against.hex if self.against is not None and compared else None,
            nonfinite=sum(row.nonfinite for row in rows.values()),
            grown=statistics.grown(named, largest)[:_NAMED] if before else [],
        )


def _row(tensor: _Tensor) -> TensorStatistics | None:
    if tensor.before is not None and tensor.looks and _is_unmoved(tensor.looks):
        return statistics.unmoved(tensor.before, tensor.count)
    from stemmata.codecs.moments import Moments  # what is compiled comes with it

    if not tensor.looks:
        return statistics.of_moments(Moments(), compared=False)
    moments = [look.moments for look in tensor.looks if look.moments is not None]
    if len(moments) < len(tensor.looks):
        return None
    return statistics.of_moments(Moments.together(moments), all(look.compared for look in tensor.looks))


def _is_unmoved(looks: Iterable[Look]) -> bool:
    return all(look.same and look.moments is None for look in looks)


def tree_of(session: Session, versions: Sequence[VersionId]) -> Tree | None:
    """The files of the first of these versions; None where there is none, or none that can be read."""
    row = queries.version_by_id(session.catalog.connection, versions[0]) if versions else None
    try:
        return session.tree(row) if row is not None else None
    except StemmataError:
        return None


def statistics_of(session: Session, record: Record, packs: Sequence[PackName]) -> dict[int, TensorStatistics]:
    """A version's table; none where it has none, or where that is damaged."""
    if record.statistics is None:
        return {}
    try:
        return statistics.decode(session.reader.read(Digest.parse(record.statistics.digest), packs))
    except (StemmataError, ValueError):
        return {}
