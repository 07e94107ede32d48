"""Packs, objects and versions: every byte of them. Owns the walk; each copy of an object is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog
from stemmata.checking.report import FAULTS, Problem, Report, reason_of
from stemmata.codecs.frames import Reference
from stemmata.codecs.workers import frame_pool
from stemmata.errors import DamagedTree, HostileData, MissingObject, StemmataError
from stemmata.ids import Digest, PackName, VersionId
from stemmata.packs import PackReader
from stemmata.records import decode_record
from stemmata.storage.base import Storage
from stemmata.trees import TreeFile, decode_tree, join_tree

if TYPE_CHECKING:
    from stemmata.codecs.decoding import Stored

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes to do."""


@dataclass(frozen=True, slots=True)
class _Pack:
    """A pack whose bytes may not have been dropped, as its pack.add describes it."""

    name: PackName
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class _Version:
    """A visible or restorable version, as the log places it."""

    id: VersionId
    record: bytes
    tree: tuple[Digest, ...]
    packs: tuple[PackName, ...]
    redacted: frozenset[str]
    attached: dict[str, str]
    """Kind -> digest of the objects that annotations attached."""


class Contents:
    """The walk over packs and versions. Each copy of an object is decoded at least once."""

    def __init__(self, storage: Storage, catalog: Catalog, report: Report, progress: Progress | None) -> None:
        self._storage = storage
        self._catalog = catalog
        self._report = report
        self._progress = progress
        self._packs: dict[PackName, PackReader] = {}
        self._copies: dict[tuple[PackName, Digest], StemmataError | None] = {}
        """Copies of objects decoded so far: None if sound, else what is wrong."""
        self._failed: dict[Digest, set[str]] = {}
        """Objects that could not be read, with the ids of the versions that wanted them."""
        self._files: dict[tuple[object, ...], StemmataError | None] = {}
        self._done = self._total = 0

    def run(self) -> None:
        packs = list(_packs_of(self._catalog))
        versions = list(_versions_of(self._catalog))
        self._total = sum(p.size for p in packs) * (1 if self._report.quick else 2)
        users: dict[PackName, list[str]] = {}
        for version in versions:
            for name in version.packs:
                users.setdefault(name, []).append(version.id.hex)
        for pack in packs:
            self._check_pack(pack, users.get(pack.name, ()))
        for version in versions:
            self._check_version(version)
        for pack in packs:
            self._check_rest(pack)
        self._report.counts.objects = len(self._copies)

    def _check_pack(self, pack: _Pack, users: Sequence[str]) -> None:
        reader = self._packs[pack.name] = PackReader(self._storage, pack.name)
        try:
            reader.verify_all(pack.size, pack.digest)
        except FAULTS as error:
            # A full check finds out which versions want the damaged bytes; a quick one cannot.
            self._blame("pack", pack.name.key, error, users if self._report.quick else ())
        self._report.counts.packs += 1
        self._report.counts.bytes += pack.size
        self._advance(pack.size)

    def _check_rest(self, pack: _Pack) -> None:
        """Decode the copies that no version has led to, and report every copy that is damaged."""
        try:
            digests = list(self._packs[pack.name].index.digests())
        except FAULTS:
            return  # reported with the pack
        for digest in digests:
            if not self._report.quick and (pack.name, digest) not in self._copies:
                try:
                    self._decode(pack.name, digest)
                except FAULTS:
                    pass  # remembered in _copies
            error = self._copies.get((pack.name, digest))
            if error is not None:
                where = f"object {digest.short} in {pack.name.key}"
                self._blame("object", where, error, sorted(self._failed.get(digest, ())))

    def _check_version(self, version: _Version) -> None:
        self._report.counts.versions += 1
        users = [version.id.hex]
        try:
            record = decode_record(version.record, version.id)
        except FAULTS as error:
            self._blame("record", f"record of {version.id.short}", error, users)
            return
        for kind, digest in {**version.attached, **record.provenance}.items():
            if kind in version.redacted:
                continue
            try:
                self._read(_digest(digest), version)
            except FAULTS as error:
                self._blame("provenance", f"{kind} of {version.id.short}", error, users)
        try:
            data = join_tree(version.id.short, (self._read(digest, version) for digest in version.tree))
            tree = decode_tree(data, record.content, version.id.short)
        except FAULTS as error:
            self._blame("tree", f"files of {version.id.short}", error, users)
            return
        for entry in tree.files:
            self._report.counts.files += 1
            fault = self._check_file(entry, version)
            if fault is not None:
                self._blame("file", f"{entry.path} of {version.id.short}", fault, users)

    def _check_file(self, entry: TreeFile, version: _Version) -> StemmataError | None:
        """Recompute a file's digest from its objects, once for all versions that share it so."""
        key = (entry.digest, entry.size, version.packs, *(d for s in entry.segments for d in s.objects))
        if key not in self._files:
            try:
                self._locate_file(entry, version) if self._report.quick else self._hash_file(entry, version)
                self._files[key] = None
            except FAULTS as error:
                self._files[key] = error
        fault = self._files[key]
        if fault is not None:
            for text in {d for s in entry.segments for d in s.objects}:
                if _digest(text) in self._failed:
                    self._failed[_digest(text)].add(version.id.hex)
        return fault

    def _hash_file(self, entry: TreeFile, version: _Version) -> None:
        state = blake3()
        for segment in entry.segments:
            length = 0
            for text in segment.objects:
                content = self._read(_digest(text), version)
                state.update(content)
                length += len(content)
            if length != segment.length:
                raise DamagedTree(
                    version=version.id.short, reason=f"{entry.path!r} is not tiled by its objects"
                )
        if state.hexdigest() != entry.digest:
            raise DamagedTree(version=version.id.short, reason=f"{entry.path!r} does not have its digest")

    def _locate_file(self, entry: TreeFile, version: _Version) -> None:
        for segment in entry.segments:
            for text in segment.objects:
                self._find(_digest(text), version)

    # --- objects --------------------------------------------------------------------------

    def _find(self, digest: Digest, version: _Version) -> list[PackName]:
        """The version's packs that hold the object. Raises the first pack's fault if none does."""
        found: list[PackName] = []
        failure: StemmataError | None = None
        for pack in version.packs:
            try:
                if self._reader(pack).index.find(digest) is not None:
                    found.append(pack)
            except FAULTS as error:
                failure = failure or error
        if not found:
            self._failed.setdefault(digest, set()).add(version.id.hex)
            raise failure or MissingObject(digest=digest)
        return found

    def _read(self, digest: Digest, version: _Version) -> bytes | bytearray:
        """The object's content, from the first sound copy among the version's packs."""
        failure: StemmataError | None = None
        for pack in self._find(digest, version):
            try:
                return self._decode(pack, digest)
            except FAULTS as error:
                failure = failure or error
        self._failed.setdefault(digest, set()).add(version.id.hex)
        raise failure or MissingObject(digest=digest)

    def _decode(self, pack: PackName, digest: Digest) -> bytes | bytearray:
        """One copy, decoded and verified; what became of it is remembered."""
        key = (pack, digest)
        known = self._copies.get(key)
        if known is not None:
            raise known
        from stemmata.codecs.decoding import decode_object

        reader = self._reader(pack)
        row = reader.index.find(digest)
        if row is None:
            raise MissingObject(digest=digest)
        try:
            content = decode_object(
                reader.read_row(digest, row),
                raw_length=row.raw,
                digest=digest,
                where=pack.hex,
                threads=frame_pool(),
                fetch=self._fetch,
            )
        except FAULTS as error:
            self._copies[key] = error
            raise
        if key not in self._copies:
            self._copies[key] = None
            if not self._report.quick:
                self._advance(row.stored)
        return content

    def _fetch(self, base: Reference) -> Stored:
        """An object that another leans on. Raises as `_find` does."""
        from stemmata.codecs.decoding import Stored

        reader = self._reader(base.pack)
        row = reader.index.find(base.digest)
        if row is None:
            raise MissingObject(digest=base.digest)
        return Stored(reader.read_row(base.digest, row), row.raw, base.digest, base.pack.hex)

    def _reader(self, pack: PackName) -> PackReader:
        if pack not in self._packs:
            self._packs[pack] = PackReader(self._storage, pack)
        return self._packs[pack]

    def _blame(self, kind: str, where: str, error: StemmataError, versions: Sequence[str]) -> None:
        self._report.problems.append(Problem(kind, where, reason_of(error), tuple(versions)))

    def _advance(self, amount: int) -> None:
        self._done = min(self._done + amount, self._total)
        if self._progress is not None:
            self._progress(self._done, self._total)


def _packs_of(catalog: Catalog) -> Iterator[_Pack]:
    rows = catalog.connection.execute(
        "SELECT name, size, digest FROM packs WHERE state != 'dropped' AND digest IS NOT NULL"
        " ORDER BY n, name"
    )
    for name, size, digest in rows.fetchall():
        yield _Pack(PackName(bytes(name)), size, Digest.parse(digest))


def _versions_of(catalog: Catalog) -> Iterator[_Version]:
    ask = catalog.connection.execute
    rows = ask(
        "SELECT seq, id, record, tree FROM versions JOIN records ON version = seq"
        " WHERE state IN ('visible', 'deleted') ORDER BY seq"
    )
    for seq, version, record, tree in rows.fetchall():
        packs = ask("SELECT pack FROM version_packs WHERE version = ? ORDER BY pack", (seq,)).fetchall()
        redacted = ask("SELECT item FROM redactions WHERE version = ?", (seq,)).fetchall()
        added = queries.annotations_of(catalog.connection, seq)
        yield _Version(
            VersionId(bytes(version)),
            bytes(record),
            tuple(map(Digest.parse, msgspec.json.decode(tree))),
            tuple(PackName(bytes(pack)) for (pack,) in packs),
            frozenset(item for (item,) in redacted),
            {kind: digest for a in added for kind, digest in a.objects.items()},
        )


def _digest(text: str) -> Digest:
    """A digest that a record or tree states. Raises HostileData for what is none."""
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise HostileData(where=f"digest {text[:80]!r}", reason=str(error)) from None
