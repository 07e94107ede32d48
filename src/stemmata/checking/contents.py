"""Packs, objects and versions: every byte of them. Owns the walk; each copy of an object is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from blake3 import blake3

from stemmata.catalog.catalog import Catalog
from stemmata.checking.copies import Copies
from stemmata.checking.extent import Extent, Progressing
from stemmata.checking.placed import PlacedPack, PlacedVersion, digest_in, packs_of, versions_of
from stemmata.checking.report import FAULTS, Note, Problem, Report, reason_of
from stemmata.errors import DamagedPack, DamagedTree, StemmataError
from stemmata.ids import Digest, PackName
from stemmata.packs import PackReader
from stemmata.records import STATISTICS, decode_record
from stemmata.storage.base import Storage
from stemmata.trees import TreeFile, decode_tree, join_tree

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes to do."""


class Contents:
    """The walk over packs and versions, as deep as `extent` says.

    Memory: a byte for each object, the indexes of packs up to 64 MiB, and 32 bytes for each file.
    """

    def __init__(
        self,
        storage: Storage,
        catalog: Catalog,
        report: Report,
        extent: Extent,
        done: Progressing,
        progress: Progress | None,
    ) -> None:
        self._storage = storage
        self._catalog = catalog
        self._report = report
        self._extent = extent
        self._before = done
        self._full = extent.level == "full"
        self._progress = progress
        self._copies = Copies(storage, self._advance if self._full else None)
        self._failed: dict[Digest, set[str]] = {}
        """Objects that could not be read, with the ids of the versions that wanted them."""
        self._named: dict[PackName, set[Digest]] = {}
        """Damaged objects that were reported with their packs."""
        self._sound_files: set[bytes] = set()
        self._bad_files: dict[bytes, StemmataError] = {}
        self._done = self._total = 0

    def run(self) -> None:
        packs = packs_of(self._catalog)
        taken = [p for p in packs if self._extent.takes(p.name.raw)]
        self._total = sum(p.size for p in taken) * (2 if self._full else 1)
        users = self._users() if not self._full else {}
        for pack in packs:
            self._check_pack(pack, users.get(pack.name, ()))
        for version in versions_of(self._catalog):
            self._check_version(version)
        for pack in packs:
            self._check_rest(pack)
        self._report.counts.objects = self._copies.count

    def look_again(self, problems: Sequence[Problem]) -> None:
        """Check what these name, as far as the log still has it, and where it has it now."""
        names = {problem.pack for problem in problems}
        ids = {version for problem in problems for version in problem.versions}
        packs = [pack for pack in packs_of(self._catalog) if pack.name.hex in names]
        users = self._users() if not self._full else {}
        for pack in packs:
            self._check_pack(pack, users.get(pack.name, ()))
        for version in versions_of(self._catalog):
            if version.id.hex in ids:
                self._check_version(version)
        for pack in packs:
            self._check_rest(pack)

    def _users(self) -> dict[PackName, list[str]]:
        """The versions that name each pack."""
        users: dict[PackName, list[str]] = {}
        rows = self._catalog.connection.execute(
            "SELECT p.pack, lower(hex(v.id)) FROM version_packs p JOIN versions v ON v.seq = p.version"
            " WHERE v.state IN ('visible', 'deleted') ORDER BY v.seq"
        )
        for pack, version in rows.fetchall():
            users.setdefault(PackName(bytes(pack)), []).append(version)
        return users

    def _check_pack(self, pack: PlacedPack, users: Sequence[str]) -> None:
        reader = PackReader(self._storage, pack.name)
        self._report.counts.packs += 1
        try:
            if self._before.has_stored(pack) or not self._reads(pack):
                self._check_shape(reader, pack)
            else:
                self._report.counts.bytes += pack.size
                reader.verify_all(pack.size, pack.digest)
                self._before.stored(pack)
        except FAULTS as error:
            # A full check finds out which versions want the damaged bytes; the others cannot.
            self._blame_pack(pack, "pack", pack.name.key, error, users)
            if self._extent.level == "stored" and not pack.retired:
                self._name_damaged(reader, pack, users)
        if self._extent.takes(pack.name.raw):
            self._advance(pack.size)

    def _reads(self, pack: PlacedPack) -> bool:
        return self._extent.level != "structure" and self._extent.takes(pack.name.raw)

    def _check_shape(self, reader: PackReader, pack: PlacedPack) -> None:
        """The pack is there, as long as the log says, and its index is sound."""
        size = reader.size
        if size != pack.size:
            raise DamagedPack(pack=pack.name, reason=f"it is {size} bytes long instead of {pack.size}")
        len(reader.index)

    def _name_damaged(self, reader: PackReader, pack: PlacedPack, users: Sequence[str]) -> None:
        """Which of a damaged pack's objects it is, as far as its index tells."""
        try:
            for digest in reader.damaged_objects():
                self._named.setdefault(pack.name, set()).add(digest)
                where = f"object {digest.short} in {pack.name.key}"
                self._report.problems.append(
                    Problem("object", where, "it fails its checksum", tuple(users), pack.name.hex)
                )
        except FAULTS:
            return  # reported with the pack

    def _check_rest(self, pack: PlacedPack) -> None:
        """Go over the copies that no version has led to, and over all headers; report every damaged copy."""
        decode = self._full and self._extent.takes(pack.name.raw)
        try:
            if decode and not self._before.has_decoded(pack):
                self._decode_rest(pack)
            # Of what decodes too: that the log does not name what a copy leans on shows here alone.
            self._copies.look(pack.name, pack.bases)
        except FAULTS:
            return  # reported with the pack
        faults = self._copies.faults(pack.name)
        for digest, error in faults.items():
            if digest not in self._named.get(pack.name, ()):
                where = f"object {digest.short} in {pack.name.key}"
                users = sorted(self._failed.get(digest, ()))
                self._blame_pack(pack, "object", where, error, users)
        if decode and not faults:
            self._before.decoded(pack)

    def _decode_rest(self, pack: PlacedPack) -> None:
        for digest in self._copies.reader(pack.name).index.digests():
            if not self._copies.was_met(pack.name, digest):
                with suppress(*FAULTS):  # remembered there
                    self._copies.decode(pack.name, digest)

    def _check_version(self, version: PlacedVersion) -> None:
        self._report.counts.versions += 1
        whole = self._full and self._extent.takes(version.id.raw)
        if whole and self._before.has_version(version):
            return
        users = [version.id.hex]
        before = len(self._report.problems)
        try:
            record = decode_record(version.record, version.id)
        except FAULTS as error:
            self._blame("record", f"record of {version.id.short}", error, users)
            return
        for kind, digest in {**version.attached, **record.beside()}.items():
            if kind in version.redacted:
                continue
            try:
                self._visit(digest_in(digest), version, whole)
            except FAULTS as error:
                if kind == STATISTICS:
                    # Derived, and evidence of nothing: the version is whole without them.
                    where, reason = f"{kind} of {version.id.short}", reason_of(error)
                    self._report.notes.append(Note(kind, where, reason))
                else:
                    self._blame("provenance", f"{kind} of {version.id.short}", error, users)
        try:
            data = join_tree(version.id.short, (self._read(digest, version) for digest in version.tree))
            tree = decode_tree(data, record.content, version.id.short)
        except FAULTS as error:
            self._blame("tree", f"files of {version.id.short}", error, users)
            return
        for entry in tree.files:
            self._report.counts.files += 1
            fault = self._check_file(entry, version, whole)
            if fault is not None:
                self._blame("file", f"{entry.path} of {version.id.short}", fault, users)
        if whole and len(self._report.problems) == before:
            self._before.version(version)

    def _check_file(self, entry: TreeFile, version: PlacedVersion, whole: bool) -> StemmataError | None:
        """Recompute a file's digest from its objects, once for all versions that share it so."""
        texts = [d for s in entry.segments for d in s.objects]
        parts = [entry.digest, str(entry.size), str(whole), *(p.hex for p in version.packs), *texts]
        key = blake3(" ".join(parts).encode()).digest()[:16]
        if key in self._sound_files:
            return None
        if key not in self._bad_files:
            try:
                if whole:
                    self._hash_file(entry, version)
                else:
                    for text in texts:
                        self._visit(digest_in(text), version, whole)
                self._sound_files.add(key)
                return None
            except FAULTS as error:
                self._bad_files[key] = error
        for text in set(texts):
            if digest_in(text) in self._failed:
                self._failed[digest_in(text)].add(version.id.hex)
        return self._bad_files[key]

    def _hash_file(self, entry: TreeFile, version: PlacedVersion) -> None:
        state = blake3()
        for segment in entry.segments:
            length = 0
            for text in segment.objects:
                content = self._read(digest_in(text), version)
                state.update(content)
                length += len(content)
            if length != segment.length:
                raise DamagedTree(
                    version=version.id.short, reason=f"{entry.path!r} is not tiled by its objects"
                )
        if state.hexdigest() != entry.digest:
            raise DamagedTree(version=version.id.short, reason=f"{entry.path!r} does not have its digest")

    # --- objects --------------------------------------------------------------------------

    def _visit(self, digest: Digest, version: PlacedVersion, whole: bool) -> None:
        """The object, read or at least found. Raises what is wrong with it."""
        if whole:
            self._read(digest, version)
            return
        try:
            self._copies.find(digest, version.packs)
        except FAULTS:
            self._failed.setdefault(digest, set()).add(version.id.hex)
            raise

    def _read(self, digest: Digest, version: PlacedVersion) -> bytes | bytearray:
        """The object's content, from the first sound copy among the version's packs."""
        try:
            return self._copies.read(digest, version.packs)
        except FAULTS:
            self._failed.setdefault(digest, set()).add(version.id.hex)
            raise

    def _blame(self, kind: str, where: str, error: StemmataError, versions: Sequence[str]) -> None:
        self._report.problems.append(Problem(kind, where, reason_of(error), tuple(versions)))

    def _blame_pack(
        self, pack: PlacedPack, kind: str, where: str, error: StemmataError, versions: Sequence[str]
    ) -> None:
        """Of a pack that nobody needs it is noted once: a collection deletes it."""
        reason = reason_of(error)
        if not pack.retired:
            self._report.problems.append(Problem(kind, where, reason, tuple(versions), pack.name.hex))
        elif all(note.where != pack.name.key for note in self._report.notes):
            reason = f"damaged ({reason}), but nobody needs it any more; gc deletes it"
            self._report.notes.append(Note("retired", pack.name.key, reason))

    def _advance(self, amount: int) -> None:
        self._done = min(self._done + amount, self._total)
        if self._progress is not None:
            self._progress(self._done, self._total)
