"""Losing: what is known of entries that are lost, from what stands around them. Owns how they are told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from stemmata.errors import StorageFailed
from stemmata.ids import Digest, PackName, VersionId
from stemmata.log import ops
from stemmata.log.entries import Entry, Position, link_of, read_entry
from stemmata.log.reader import fetch
from stemmata.recovering.origins import Itself
from stemmata.recovering.planning import Plan, bytes_of
from stemmata.recovering.report import Lost, Vanished
from stemmata.storage.base import Storage

_NOTHING = Digest(bytes(Digest.SIZE))


class Remains:
    """What the sound entries of a plan say, read once."""

    def __init__(self, storage: Storage, plan: Plan, itself: Itself) -> None:
        self._plan = plan
        self.times: dict[int, str] = {}
        self.added: dict[str, tuple[int, Vanished]] = {}
        """Versions by id, with the entry that adds each."""
        self.named: dict[str, int] = {}
        """Ids that later ops speak of, with the first entry that does."""
        self.packs: set[str] = set()
        for n, entry in _entries(storage, plan, itself):
            self.times[n] = entry.at
            for op in entry.ops:
                self._take(n, op)

    def _take(self, n: int, op: ops.Op) -> None:
        if isinstance(op, ops.VersionAdd):
            version = VersionId.of(bytes(op.record)).hex
            self.added[version] = (n, Vanished(version, op.model, op.name))
        elif isinstance(op, ops.PackAdd):
            self.packs.add(op.pack)
        elif isinstance(op, ops.PackRetire | ops.PackDrop):
            self.packs.update(op.packs)
        for version in _spoken_of(op):
            self.named.setdefault(version, n)

    def lost(self, catalogs: Sequence[Path]) -> list[Lost]:
        """The lost entries, those next to each other together."""
        unknown = {v: n for v, n in self.named.items() if v not in self.added}
        found: list[Lost] = []
        for first, last in _runs([n for n in self._plan.lost() if n]):
            versions = {v.id: v for file in catalogs for v in _remembered(file, first, last)}
            for version, n in unknown.items():
                # Of several holes before it nobody knows which: it is told with the last.
                if n > last and not any(last < other < n for other in self._plan.lost()):
                    versions.setdefault(version, Vanished(version))
            found.append(
                Lost(
                    first,
                    last,
                    self._plan.found[first].fault,
                    self.times.get(first - 1, ""),
                    self.times.get(last + 1, ""),
                    tuple(versions.values()),
                )
            )
        return found

    def out_of_reach(self) -> list[Vanished]:
        """Versions of sound entries behind the first that is lost."""
        return [version for n, version in self.added.values() if n > self._plan.whole]


def unnamed_packs(storage: Storage, remains: Remains) -> int:
    """Packs in the store that no readable entry names."""
    keys = (key.key for key in storage.list("packs/"))
    names = (key.rpartition("/")[2].removesuffix(".pack") for key in keys)
    return sum(name not in remains.packs and len(name) == PackName.SIZE * 2 for name in names)


def _entries(storage: Storage, plan: Plan, itself: Itself) -> Iterator[tuple[int, Entry]]:
    for n in range(1, plan.last + 1):
        right = plan.right.get(n)
        try:
            if right is not None:
                data = bytes_of(right.origin, n, right, itself)
            else:
                data = fetch(storage, n) if plan.found[n].hash is not None else None
        except StorageFailed:
            continue
        if data is None:
            continue
        found = read_entry(n, data, Position(n - 1, link_of(data) or _NOTHING, ""))
        if isinstance(found, Entry):
            yield n, found


def _spoken_of(op: ops.Op) -> list[str]:
    """The versions that an op takes to be there."""
    if isinstance(op, ops.RefSet):
        return [op.to]
    if isinstance(op, ops.VersionForget):
        return op.versions
    version = getattr(op, "version", None)
    return [version] if isinstance(version, str) else []


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    begin = end = 0
    for n in numbers:
        if end and n == end + 1:
            end = n
            continue
        if end:
            yield begin, end
        begin = end = n
    if end:
        yield begin, end


def _remembered(file: Path, first: int, last: int) -> list[Vanished]:
    """Versions that a catalog took in from these entries."""
    sql = (
        "SELECT lower(hex(v.id)), m.name, v.name FROM versions v JOIN models m ON m.key = v.model"
        " WHERE v.n BETWEEN ? AND ? ORDER BY v.seq"
    )
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db,
    ):
        return [Vanished(*row) for row in db.execute(sql, (first, last)).fetchall()]
    return []
