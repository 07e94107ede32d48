"""Weighing: how far the weights of one version are from those of another.

Of neighbours it is known since the later one was saved. Any other two are read tensor by tensor, in pieces
of at most 16 Mi elements, whatever the size of the models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from stemmata.catalog.queries import VersionRow
from stemmata.codecs.dtypes import dtype_of
from stemmata.compare import statistics
from stemmata.compare.packed import packed_forms
from stemmata.compare.statistics import AsStored, Movement, TensorStatistics, WeightsDiff
from stemmata.compare.tensors import Tensor, TensorChange, TensorsDiff, numbered
from stemmata.errors import HostileData
from stemmata.ids import Digest
from stemmata.objects import comparable
from stemmata.session import Session
from stemmata.surveyor import statistics_of

if TYPE_CHECKING:
    from stemmata.codecs.moments import Moments
    from stemmata.objects.room import Room

Progress = Callable[[int], None]
_Place = tuple[str, str]
"""A tensor's file and its name there."""


def weigh(
    session: Session,
    a: VersionRow,
    b: VersionRow,
    tensors: TensorsDiff,
    progress: Progress | None = None,
) -> WeightsDiff:
    """How far what `tensors` names moved from `a` to `b`. `progress` gets the bytes of each piece read.

    Raises Damage where weights have to be read and are not sound.
    """
    kept = _kept(session, a, b, tensors)
    forms = packed_forms(tensors)
    as_stored: dict[str, AsStored] = {}
    moved: dict[str, Movement] = {}
    incomparable: list[str] = []
    read = 0
    streamed = _Streamed(session, a, b)
    for change in [*tensors.changed, *tensors.refitted]:
        found = kept.get(change.name)
        if change.name in forms:
            as_stored[change.name] = AsStored(forms[change.name], found.unchanged if found else None)
            continue
        if found is None:
            if not _comparable(change):
                incomparable.append(change.name)
                continue
            for piece in streamed.pieces(change):
                read += piece
                if progress is not None:
                    progress(piece)
            found = streamed.found
        if found is not None:
            moved[change.name] = found
    return WeightsDiff(moved, tuple(incomparable), read, as_stored, lambda: _norms(session, b))


def _norms(session: Session, row: VersionRow) -> dict[_Place, float]:
    return {place: kept.l2 for place, kept in rows_of(session, row).items()}


def _comparable(change: TensorChange) -> bool:
    return not change.reshaped and comparable(dtype_of(change.a.dtype), dtype_of(change.b.dtype))


def _kept(session: Session, a: VersionRow, b: VersionRow, tensors: TensorsDiff) -> dict[str, Movement]:
    """What the later of two neighbours knows of the way from the earlier one."""
    for later, earlier in ((b, a), (a, b)):
        learnt = session.record(later).statistics
        if learnt is None or learnt.against != earlier.id.hex:
            continue
        rows = rows_of(session, later)
        found: dict[str, Movement] = {}
        for change in [*tensors.changed, *tensors.refitted]:
            tensor = change.b if later is b else change.a
            row = rows.get((tensor.path, tensor.name))
            if row is not None and row.movement is not None:
                found[change.name] = row.movement if later is b else row.movement.back()
        return found
    return {}


def rows_of(session: Session, row: VersionRow) -> dict[_Place, TensorStatistics]:
    """What is kept of a version's tensors; of none where it has no table."""
    kept = statistics_of(session, session.record(row), session.packs(row))
    if not kept:
        return {}
    return {
        (path, segment.name or ""): kept[number]
        for number, path, segment in numbered(session.tree(row))
        if number in kept
    }


def statistics_by_name(session: Session, row: VersionRow) -> dict[str, TensorStatistics]:
    """As `rows_of`, by name; by `path:name` where several files have a tensor of that name."""
    rows = rows_of(session, row)
    names = Counter(name for _, name in rows)
    return {name if names[name] == 1 else f"{path}:{name}": kept for (path, name), kept in rows.items()}


class _Streamed:
    """Reads two versions' tensors side by side."""

    def __init__(self, session: Session, a: VersionRow, b: VersionRow) -> None:
        self._reader = session.reader
        self._packs = session.packs(a), session.packs(b)
        self._lent: Room | None = None
        self.found: Movement | None = None

    def pieces(self, change: TensorChange) -> Iterable[int]:
        """Yields the bytes read for each piece; then `found` is of the whole tensor."""
        from stemmata.codecs.moments import Moments

        parts: list[Moments] = []
        for before, after in zip(change.a.objects, change.b.objects, strict=True):
            parts.append(self._piece(change.a, before, change.b, after))
            yield (change.a.length + change.b.length) // max(1, len(change.a.objects))
        row = statistics.of_moments(Moments.together(parts), compared=True)
        self.found = row.movement

    def _piece(self, a: Tensor, before: str, b: Tensor, after: str) -> Moments:
        import numpy as np

        from stemmata.codecs.moments import Moments
        from stemmata.codecs.workers import each, frame_pool
        from stemmata.objects.room import Room

        self._lent = self._lent or Room()
        old, new = dtype_of(a.dtype), dtype_of(b.dtype)
        views: list[memoryview] = []
        try:
            for digest, packs in zip((before, after), self._packs, strict=True):
                views.append(self._reader.lend(Digest.parse(digest), packs, self._lent))
            left, right = (np.frombuffer(view, np.uint8) for view in views)
            if len(left) * new.itemsize != len(right) * old.itemsize:
                reason = "a piece of it has not as many numbers as the other version's"
                raise HostileData(where=f"tensor {b.name!r}", reason=reason)
            step = new.max_frame_bytes // new.itemsize

            def part(begin: int) -> Moments:
                end = begin + step
                return Moments.of(
                    right[begin * new.itemsize : end * new.itemsize],
                    new,
                    left[begin * old.itemsize : end * old.itemsize],
                    old,
                )

            starts = range(0, len(right) // new.itemsize, step)
            return Moments.together(each(part, starts, frame_pool()))
        finally:
            for view in views:
                self._lent.give_back(view)
