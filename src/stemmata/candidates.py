"""Candidates: which stored tensors the tensors of a new version may resemble. Owns where they are looked for.

In the parents, by name; where there is none of that name, by shape and place among those of that shape, and
so are those without a name (what lies under a number or in a list, as an optimizer's states) among their
like. Where a tensor has no counterpart in them (they hold half precision, another architecture, no
optimizer): in their parents and in other versions of the model. Without parents: in other versions of the
model and in the newest of each other model, the most alike first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from stemmata.catalog import queries
from stemmata.catalog.queries import VersionRow
from stemmata.containers.base import PlannedSegment
from stemmata.errors import StemmataError
from stemmata.ids import Digest, PackName, VersionId
from stemmata.names import name_key
from stemmata.objects import Candidate
from stemmata.session import Session
from stemmata.trees import Segment, Tree, TreeFile

_WIDE = "F32"
_NARROW = frozenset({"F16", "BF16"})
_OTHERS = 4
"""Versions of the same model that are looked at where no parent is known."""
_MODELS = 64
"""Other models whose newest version is looked at."""
_ABOVE = 4
"""Versions in a row, each made from the next, that one may lean on: see `objects.choosing.WORK`."""
_KEPT = 3
"""Of those, how many are tried for a tensor."""

_WORTH_A_LOOK = 16 << 10
"""Bytes of a tensor without a counterpart for which more versions are looked at."""

_Key = tuple[str, tuple[int, ...]]


class _Relative(msgspec.Struct):
    """One version's tensors."""

    packs: Sequence[PackName]
    files: Sequence[TreeFile] = ()
    named: dict[tuple[str, str], Segment] = msgspec.field(default_factory=dict)
    """By name and dtype."""
    shaped: dict[_Key, list[Segment]] = msgspec.field(default_factory=dict)
    """By dtype and shape, in the order of their files."""
    unnamed: dict[_Key, list[Segment]] = msgspec.field(default_factory=dict)
    """As `shaped`, of those without a name: what an optimizer keeps under numbers, a pickled module holds."""

    @classmethod
    def of(cls, tree: Tree, packs: Sequence[PackName]) -> _Relative:
        found = cls(packs, tree.files)
        for file in tree.files:
            for segment in file.segments:
                if not segment.dtype or segment.shape is None or not segment.length:
                    continue
                if segment.name is None:
                    found.unnamed.setdefault(_key(segment.dtype, segment.shape), []).append(segment)
                    continue
                found.named.setdefault((segment.name, segment.dtype), segment)
                found.shaped.setdefault(_key(segment.dtype, segment.shape), []).append(segment)
        return found

    def like(self, name: str | None, dtype: str, shape: tuple[int, ...], place: int) -> Segment | None:
        """The tensor of that name, if it has that shape; else the one at that place among those that have.
        Of one without a name: among those without."""
        segment = self.named.get((name, dtype)) if name is not None else None
        if segment is not None and tuple(segment.shape or ()) == shape:
            return segment
        others = (self.unnamed if name is None else self.shaped).get(_key(dtype, shape), ())
        return others[place] if place < len(others) else None


def _key(dtype: str, shape: Sequence[int]) -> _Key:
    return dtype, tuple(shape)


class Candidates:
    """Answers for the tensors of one new version, which are asked for in the order of their files."""

    def __init__(
        self, relatives: Iterable[_Relative], further: Callable[[], Iterable[_Relative]] = tuple
    ) -> None:
        """`further` is asked once, and only if there is a tensor that resembles nothing in `relatives`."""
        self._relatives = list(relatives)
        self._further = further
        self._others: list[_Relative] | None = None
        self._places: dict[tuple[bool, _Key], int] = {}

    @property
    def files(self) -> Iterator[TreeFile]:
        """Those of the versions that are looked at first."""
        return (file for relative in self._relatives for file in relative.files)

    def pass_over(self, segments: Iterable[Segment]) -> None:
        """Of these nothing will be asked: they are stored. Counts them among the others of their shapes."""
        for segment in segments:
            if segment.dtype and segment.shape is not None:
                self._place(segment.name, segment.dtype, segment.shape)

    def of(self, segment: PlannedSegment) -> list[list[Candidate]]:
        """For each piece of a tensor, the stored objects that it may be coded against, best first."""
        if not segment.dtype or segment.shape is None:
            return [[] for _ in segment.pieces]
        place = self._place(segment.name, segment.dtype, segment.shape)
        found = _like(self._relatives, segment, place)
        if not any(found) and segment.length >= _WORTH_A_LOOK:
            if self._others is None:
                self._others = list(self._further())
            found = [piece[:_KEPT] for piece in _like(self._others, segment, place)]
        return found

    def _place(self, name: str | None, dtype: str, shape: Sequence[int]) -> int:
        """How many of its shape, with a name or without, came before this one."""
        key = name is None, _key(dtype, shape)
        place = self._places.get(key, 0)
        self._places[key] = place + 1
        return place


def _like(relatives: Iterable[_Relative], segment: PlannedSegment, place: int) -> list[list[Candidate]]:
    pieces: list[list[Candidate]] = [[] for _ in segment.pieces]
    shape = segment.shape or ()
    for relative in relatives:
        for dtype in (segment.dtype, _WIDE) if segment.dtype in _NARROW else (segment.dtype,):
            found = relative.like(segment.name, dtype, shape, place)
            if found is not None and len(found.objects) == len(pieces):
                for piece, digest in zip(pieces, found.objects, strict=True):
                    piece.append((Digest.parse(digest), relative.packs))
    return pieces


def candidates_for(
    session: Session, model: str, parents: Sequence[VersionId], planned: Iterable[PlannedSegment]
) -> Candidates:
    """What a new version of `model` with these parents may be coded against; `planned` are its tensors."""
    rows = _rows(session, parents)
    known = list(_read(session, rows))
    if known:
        return Candidates(known, lambda: _read(session, _further(session, model, rows)))
    best: list[tuple[int, _Relative]] = []
    wanted: list[PlannedSegment] | None = None
    # One at a time: a version may have very many tensors.
    for relative in _read(session, _strangers(session, model)):
        if wanted is None:
            # Not before there is a reason to: files that are no containers are read whole for it.
            wanted = [s for s in planned if s.dtype and s.shape is not None]
        score = _alike(relative, wanted)
        if score:
            best = sorted([*best, (score, relative)], key=lambda row: -row[0])[:_KEPT]  # stable: newest first
    return Candidates(relative for _, relative in best)


def among(
    versions: Iterable[tuple[Tree, Sequence[PackName]]],
    further: Iterable[tuple[Tree, Sequence[PackName]]] = (),
) -> Candidates:
    """What a version may be coded against, given the files of others and where they lie; see `Candidates`."""
    return Candidates(
        (_Relative.of(tree, packs) for tree, packs in versions),
        lambda: (_Relative.of(tree, packs) for tree, packs in further),
    )


def _rows(session: Session, versions: Iterable[VersionId]) -> list[VersionRow]:
    found = (queries.version_by_id(session.catalog.connection, version) for version in versions)
    return [row for row in found if row is not None]


def files_above(session: Session, parents: Sequence[VersionId]) -> Iterator[TreeFile]:
    """The files of the versions that these were made from, on which theirs may lean."""
    rows, seen = _rows(session, parents), set(parents)
    for _ in range(_ABOVE):
        above = [parent for row in rows for parent in _parents_of(session, row) if parent not in seen]
        rows = _rows(session, dict.fromkeys(above))
        seen.update(above)
        for relative in _read(session, rows):
            yield from relative.files


def _further(session: Session, model: str, parents: Sequence[VersionRow]) -> Iterator[VersionRow]:
    """The parents' parents, then the newest versions of the model; each once, and none of the parents."""
    seen = {row.id for row in parents}
    above = [parent for row in parents for parent in _parents_of(session, row)]
    newest = queries.newest_of(session.catalog.connection, name_key(model), _OTHERS)
    for row in [*_rows(session, above), *newest]:
        if row.id not in seen:
            seen.add(row.id)
            yield row


def _parents_of(session: Session, row: VersionRow) -> list[VersionId]:
    try:
        return [VersionId.parse(parent) for parent in session.record(row).parents]
    except (StemmataError, ValueError):
        return []  # as in `_read`


def _strangers(session: Session, model: str) -> Iterator[VersionRow]:
    """The newest versions of the model, then the newest of every other one, newest first."""
    connection = session.catalog.connection
    yield from queries.newest_of(connection, name_key(model), _OTHERS)
    yield from queries.newest_of_others(connection, name_key(model), _MODELS)


def _read(session: Session, rows: Iterable[VersionRow]) -> Iterator[_Relative]:
    for row in rows:
        try:
            yield _Relative.of(session.tree(row), session.packs(row))
        except StemmataError:
            continue  # what cannot be read is no base; nothing is lost by that but bytes


def _alike(relative: _Relative, wanted: Sequence[PlannedSegment]) -> int:
    """Bytes of the new tensors that have a counterpart of their shape, twice where the name is theirs too."""
    total = 0
    for segment in wanted:
        shape = segment.shape or ()
        if segment.name is None:
            # Bytes between tensors have shapes too: long ones alone tell something.
            alike = segment.length >= _WORTH_A_LOOK and _key(segment.dtype, shape) in relative.unnamed
            total += segment.length if alike else 0
            continue
        named = relative.named.get((segment.name, segment.dtype))
        if named is not None and tuple(named.shape or ()) == shape:
            total += 2 * segment.length
        elif _key(segment.dtype, shape) in relative.shaped or (
            segment.dtype in _NARROW and _key(_WIDE, shape) in relative.shaped
        ):
            total += segment.length
    return total
