"""Packs: write-once files of many encoded objects, each with its own index. Owns FORMAT.md, section 4.

Never decodes an object and never deletes a pack.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence

import msgspec
from blake3 import blake3

from stemmata.codecs.faults import translated
from stemmata.codecs.frames import MAX_HEADER, Reference, read_header
from stemmata.codecs.hashing import Buffer, check_of, digest_of
from stemmata.errors import (
    Damage,
    DamagedObject,
    DamagedPack,
    HostileData,
    KeyExists,
    KeyMissing,
    MissingObject,
    MissingPack,
    NewerFormat,
    OutcomeUnknown,
    StemmataError,
    StorageFailed,
)
from stemmata.ids import Digest, PackName
from stemmata.packindex import ROW, IndexRow, NoIndex, PackIndex, TooLarge, check_rows
from stemmata.storage.base import Storage

MAX_OBJECTS = 2 << 20
"""Objects of the largest pack that is written or read."""

_MAGIC, _END = b"STMPACK1", b"STMPKEND"
_FOOTER = struct.Struct("<QQ32sQ8s")
_CHUNK = 4 << 20
_LONG = 256 << 10
"""Bytes that are handed on at once: gathering them would be a copy for nothing."""
_SMALL = 16 << 10
"""Stored bytes of an object below which headers are read together with what lies between them,"""
_HEADERS = 256 << 10
"""so many bytes at once."""
_TAIL = 64 << 10
"""Read from the end at once: the footer, and with it the whole index of most packs."""


class PackSummary(msgspec.Struct, frozen=True):
    """A durable pack: what `pack.add` says of it, and its index."""

    name: PackName
    size: int
    digest: Digest
    index: PackIndex
    bases: tuple[PackName, ...] = ()
    """Packs that its objects lean on."""


class PackWriter:
    """Writes one pack, object after object, in a few MiB of memory. For one thread at a time."""

    def __init__(self, storage: Storage, name: PackName | None = None) -> None:
        self.name = name or PackName.fresh()
        self.size = 0
        """Bytes so far."""
        self._storage = storage
        self._new = storage.start_new(self.name.key)
        self._hasher = blake3()
        self._pending = bytearray()
        self._rows: dict[bytes, bytes] = {}
        self._bases: set[PackName] = set()
        self._write(_MAGIC)

    def __len__(self) -> int:
        return len(self._rows)

    def contains(self, digest: Digest) -> bool:
        return digest.raw in self._rows

    def add(
        self, digest: Digest, parts: Sequence[Buffer], raw_length: int, base: PackName | None = None
    ) -> None:
        """Append an encoded object, which leans on one of the pack `base`.

        Raises ValueError for one that is in here and for one more than is read, and as storages do.
        """
        if self.contains(digest):
            raise ValueError(f"pack {self.name} holds {digest} already")
        if len(self) >= MAX_OBJECTS:
            raise ValueError(f"a pack holds at most {MAX_OBJECTS} objects")
        if base is not None:
            self.lean_on(base)
        offset = self.size
        for part in parts:
            self._write(part)
        check = check_of(parts)
        self._rows[digest.raw] = ROW.pack(digest.raw, offset, self.size - offset, raw_length, check)

    def lean_on(self, base: PackName) -> None:
        """Note that an object in here leans on one of the pack `base`; on one of this very pack it may."""
        if base != self.name:
            self._bases.add(base)

    def commit(self) -> PackSummary:
        """Make the pack durable (I1). Raises StorageFull, StorageFailed, StorageReadOnly, KeyExists."""
        rows = b"".join(self._rows[key] for key in sorted(self._rows))
        offset = self.size
        self._write(rows)
        self._write(_FOOTER.pack(offset, len(self._rows), digest_of(rows).raw, 0, _END))
        self._flush()
        summary = PackSummary(
            self.name, self.size, Digest(self._hasher.digest()), PackIndex(rows), tuple(sorted(self._bases))
        )
        try:
            self._new.commit()
        except (OutcomeUnknown, KeyExists) as error:
            self._settle(summary, error)
        return summary

    def abort(self) -> None:
        """Drop what was written. After `commit` this does nothing."""
        self._new.abort()

    def _settle(self, summary: PackSummary, error: OutcomeUnknown | KeyExists) -> None:
        """Names are never reused, so a pack of this name with these bytes is the one just written."""
        try:
            PackReader(self._storage, self.name).verify_all(summary.size, summary.digest)
            self._storage.make_durable(self.name.key)
        except (MissingPack, KeyMissing):
            raise StorageFailed(where=self._storage.where, reason=str(error)) from error
        except Damage:
            raise error from None

    def _write(self, data: Buffer) -> None:
        self.size += len(data)
        if len(data) >= _LONG:
            self._flush()
            self._send(data)
            return
        self._pending += data
        if len(self._pending) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            # A fresh buffer each time: a storage may still hold on to the one it was given.
            data, self._pending = self._pending, bytearray()
            self._send(data)

    def _send(self, data: Buffer) -> None:
        self._hasher.update(data)
        self._new.write(data)


class PackReader:
    """Reads one pack. Safe to use from many threads; the index is read once and kept."""

    def __init__(self, storage: Storage, name: PackName) -> None:
        self.name = name
        self._storage = storage
        self._index: PackIndex | None = None

    @property
    def index(self) -> PackIndex:
        """The verified index. Raises MissingPack, DamagedPack, HostileData."""
        if self._index is None:
            self._index = self._read_index()
        return self._index

    @property
    def size(self) -> int:
        """Bytes of the whole pack. Raises MissingPack."""
        return self._size()

    def read(self, digest: Digest) -> bytes:
        """The encoded object, held against its checksum.

        Raises MissingObject, MissingPack, DamagedPack, DamagedObject, HostileData.
        """
        row = self.index.find(digest)
        if row is None:
            raise MissingObject(digest=digest)
        return self.read_row(digest, row)

    def read_row(self, digest: Digest, row: IndexRow) -> bytes:
        """As `read`, for a row that is at hand."""
        stored = self._get(row.offset, row.stored)
        if len(stored) != row.stored:
            raise self._cut_off(digest)
        self.require_sound(digest, row, stored)
        return stored

    def read_all(self) -> Iterator[tuple[Digest, int, memoryview]]:
        """Every object in the order in which they lie there: digest, raw length and encoded bytes, held
        against their checksum. The whole pack is in memory: for small ones. Raises as `read`."""
        rows = sorted(self.index.rows(), key=lambda row: row[1].offset)
        data = memoryview(self._get(0, rows[-1][1].offset + rows[-1][1].stored if rows else 0))
        for digest, row in rows:
            stored = data[row.offset : row.offset + row.stored]
            if len(stored) != row.stored:
                raise self._cut_off(digest)
            self.require_sound(digest, row, stored)
            yield digest, row.raw, stored

    def require_sound(self, digest: Digest, row: IndexRow, stored: Buffer) -> None:
        """Hold an encoded object that was read against its checksum. Raises DamagedObject."""
        if check_of((stored,)) != row.check:
            raise DamagedObject(digest=digest, pack=self.name, reason="it fails its checksum")

    def read_into(self, digest: Digest, row: IndexRow, into: memoryview, at: int = 0) -> None:
        """What lies from `at` on in an object, into memory no longer than that, and unchecked: for whoever
        holds what it decodes to against `digest`, which is proof enough. Raises as `read_row`."""
        with self._missing():
            count = self._storage.get_into(self.name.key, row.offset + at, into)
        if count != len(into):
            raise self._cut_off(digest)

    def read_ahead(self, row: IndexRow, length: int) -> bytes:
        """Up to `length` bytes from where an object begins, unchecked. Raises MissingPack."""
        return self._get(row.offset, length)

    def references(self) -> Iterator[tuple[Digest, tuple[Reference, ...] | StemmataError]]:
        """What each object leans on, by its header alone, in the order in which they lie; of a header that is
        not sound, what is wrong. Raises MissingPack, DamagedPack, HostileData."""
        window, begin = b"", 0
        for digest, row in sorted(self.index.rows(), key=lambda item: item[1].offset):
            length = min(row.stored, MAX_HEADER)
            if not begin <= row.offset <= begin + len(window) - length:
                # Small objects are many: one read for those that lie close together.
                window = self._get(row.offset, _HEADERS if row.stored < _SMALL else length)
                begin = row.offset
            at = row.offset - begin
            try:
                yield digest, self._references(digest, row, window[at : at + length])
            except (Damage, NewerFormat) as error:
                yield digest, error

    def _references(self, digest: Digest, row: IndexRow, head: bytes) -> tuple[Reference, ...]:
        with translated(digest.hex, self.name.hex):
            header = read_header(memoryview(head))
        if header.raw_length != row.raw:
            raise DamagedObject(digest=digest, pack=self.name, reason="its header is not what the index says")
        return header.references

    def verify_all(self, expected_size: int, expected_digest: Digest) -> None:
        """Read every byte and hold the pack against what its `pack.add` says, in little memory.

        Raises MissingPack, DamagedPack, HostileData.
        """
        size = self._size()
        if size != expected_size:
            raise self._damaged(f"it is {size} bytes long instead of {expected_size}")
        state = blake3()
        for at in range(0, size, _CHUNK):
            chunk = self._get(at, _CHUNK)
            if at == 0 and not chunk.startswith(_MAGIC):
                raise self._damaged("it does not begin as a pack does")
            state.update(chunk)
        if state.digest() != expected_digest.raw:
            raise self._damaged("its bytes are not what the log says")
        self._read_index()

    def damaged_objects(self) -> Iterator[Digest]:
        """The objects whose stored bytes fail their checksum, reading all of them."""
        for digest in self.index.digests():
            try:
                self.read(digest)
            except DamagedObject:
                yield digest

    def _read_index(self) -> PackIndex:
        size = self._size()
        if size < len(_MAGIC) + _FOOTER.size:
            raise self._damaged(f"it is only {size} bytes long")
        tail = self._get(max(0, size - _TAIL), _TAIL)
        if len(tail) != min(size, _TAIL):
            raise self._damaged("its end cannot be read")
        end = size - _FOOTER.size
        offset, count, digest, reserved, magic = _FOOTER.unpack(tail[-_FOOTER.size :])
        if magic != _END:
            raise self._damaged("it does not end as a pack does")
        if reserved:
            raise self._damaged("a reserved field of its footer is not zero")
        if offset < len(_MAGIC) or offset > end or count * ROW.size != end - offset:
            raise self._damaged("its footer does not fit its size")
        if count > MAX_OBJECTS:
            raise HostileData(where=f"pack {self.name}", reason=f"{count} objects")
        length = end - offset
        within = len(tail) - _FOOTER.size
        rows = tail[within - length : within] if length <= within else self._get(offset, length)
        if len(rows) != length or digest_of(rows).raw != digest:
            raise self._damaged("its index is not what its footer says")
        try:
            check_rows(rows, offset, len(_MAGIC))
        except NoIndex as error:
            raise self._damaged(str(error)) from None
        except TooLarge as error:
            raise HostileData(where=f"pack {self.name}", reason=str(error)) from None
        return PackIndex(rows)

    def _size(self) -> int:
        with self._missing():
            return self._storage.size(self.name.key)

    def _get(self, start: int, length: int) -> bytes:
        with self._missing():
            return self._storage.get(self.name.key, start, length)

    @contextlib.contextmanager
    def _missing(self) -> Iterator[None]:
        try:
            yield
        except KeyMissing:
            raise MissingPack(pack=self.name) from None

    def _cut_off(self, digest: Digest) -> DamagedObject:
        return DamagedObject(digest=digest, pack=self.name, reason="its pack is cut off before its end")

    def _damaged(self, reason: str) -> DamagedPack:
        return DamagedPack(pack=self.name, reason=reason)
