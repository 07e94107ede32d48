"""Bundles: many entries in one key, so that a cold reader is fast. Owns their bytes (FORMAT.md, 3.3).

A bundle is never needed and never believed on its own word; see `reader.confirm`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from struct import Struct
from struct import error as StructError

import msgspec
from blake3 import blake3

from stemmata.errors import DamagedBundle, StemmataError
from stemmata.ids import random_hex
from stemmata.log.blocks import Block, Refuse, Stream, encode_block, read_blocks, unpack
from stemmata.log.entries import MAX_ENTRY_BYTES, log_key
from stemmata.storage.base import Storage

LEVELS = (256, 4096, 65536)

_MAGIC = b"STMBNDL1"
_HEADER = Struct("<8sQQI")
_LENGTH = Struct("<I")
_BLOCK_ENTRIES = 256
_BLOCK_BYTES = 256 << 20
_WRITE_BYTES = 8 << 20  # what this writer puts into a block: a reader holds one at a time
_KEY = re.compile(r"bundles/(256|4096|65536)/(\d{20})-(\d{20})-([0-9a-f]{16})\.bundle", re.ASCII)


class BundleName(msgspec.Struct, frozen=True):
    """What a bundle's key says of it."""

    level: int
    first: int
    last: int
    nonce: str

    @property
    def key(self) -> str:
        return f"bundles/{self.level}/{self.first:020d}-{self.last:020d}-{self.nonce}.bundle"

    @classmethod
    def parse(cls, key: str) -> BundleName | None:
        """None for a key that no bundle may have."""
        match = _KEY.fullmatch(key)
        if match is None:
            return None
        name = cls(int(match[1]), int(match[2]), int(match[3]), match[4])
        fits = name.first % name.level == 1 and name.last == name.first + name.level - 1
        return name if fits else None

    @classmethod
    def fresh(cls, level: int, first: int) -> BundleName:
        return cls(level, first, first + level - 1, random_hex(8))


def find_bundles(storage: Storage) -> list[BundleName]:
    """All bundles that there are, by their keys alone."""
    names = (BundleName.parse(k.key) for level in LEVELS for k in storage.list(f"bundles/{level}/"))
    return [name for name in names if name is not None]


def missing_bundles(storage: Storage, n: int) -> list[str]:
    """Where bundles would be that are due at entry `n` and not there: their keys without the last part."""
    there = {(b.level, b.first) for b in find_bundles(storage)}
    due = ((level, first) for level in LEVELS for first in range(1, n - level + 2, level))
    return [
        f"bundles/{level}/{first:020d}-{first + level - 1:020d}"
        for level, first in due
        if (level, first) not in there
    ]


def write_due_bundles(storage: Storage, n: int) -> None:
    """Write the bundles that end at entry `n`, where they are missing. Never fails."""
    try:
        for below, level in zip((1, *LEVELS), LEVELS, strict=False):
            if n == 0 or n % level:
                return
            there = find_bundles(storage)
            if any(b.level == level and b.last == n for b in there):
                continue
            if not write_bundle(storage, level, n - level + 1, [b for b in there if b.level == below]):
                return
    except StemmataError:
        # Best effort: the log itself is complete without them.
        return


def write_bundle(storage: Storage, level: int, first: int, below: list[BundleName]) -> bool:
    """Write the bundle of `level` that begins at entry `first`, of the log's entries or of the bundles one
    level lower; False if those are not complete. Raises KeyMissing, DamagedBundle, the storage's errors."""
    if level != LEVELS[0]:
        return _merge(storage, level, first, below)
    entries = (storage.get(log_key(i), 0, MAX_ENTRY_BYTES + 1) for i in range(first, first + level))
    storage.put_new(BundleName.fresh(level, first).key, encode_bundle(first, entries))
    return True


def encode_bundle(first: int, entries: Iterable[bytes]) -> bytes:
    """The bytes of a bundle of these entries, the first of which is number `first`."""
    import zstandard

    compressor = zstandard.ZstdCompressor(level=3)
    blocks: list[bytes] = []
    pending: list[bytes] = []
    size = count = 0

    def close_block() -> None:
        nonlocal size
        raw = b"".join(_LENGTH.pack(len(e)) + e for e in pending)
        blocks.append(encode_block(len(raw), compressor.compress(raw)))
        pending.clear()
        size = 0

    for entry in entries:
        if pending and (len(pending) == _BLOCK_ENTRIES or size + len(entry) > _WRITE_BYTES):
            close_block()
        pending.append(entry)
        size += len(entry) + _LENGTH.size
        count += 1
    if pending:
        close_block()
    data = _HEADER.pack(_MAGIC, first, first + count - 1, len(blocks)) + b"".join(blocks)
    return data + blake3(data).digest()


def entries_of(storage: Storage, name: BundleName) -> Iterator[bytes]:
    """A bundle's entries as stored, in order. Raises DamagedBundle (at the end at the latest), KeyMissing."""
    expected = name.last - name.first + 1
    found = 0
    for block in blocks_of(storage, name):
        for entry in entries_in(name, block):
            found += 1
            yield entry
    if found != expected:
        raise DamagedBundle(key=name.key, reason=f"it holds {found} entries instead of {expected}")


def _merge(storage: Storage, level: int, first: int, below: list[BundleName]) -> bool:
    """Copy the blocks of the bundles one level lower into one; False if they are not complete and sound."""
    parts: list[BundleName] = []
    wanted = first
    while wanted < first + level:
        found = next((b for b in below if b.first == wanted), None)
        if found is None:
            return False
        parts.append(found)
        wanted = found.last + 1
    count = sum(_head(Stream(storage, part.key), part) for part in parts)
    name = BundleName.fresh(level, first)
    new = storage.start_new(name.key)
    try:
        header = _HEADER.pack(_MAGIC, first, name.last, count)
        seal = blake3(header)
        new.write(header)
        for part in parts:
            for raw_length, stored in blocks_of(storage, part):
                block = encode_block(raw_length, stored)
                seal.update(block)
                new.write(block)
        new.write(seal.digest())
        new.commit()
    finally:
        new.abort()
    return True


def _head(stream: Stream, name: BundleName) -> int:
    """Read the header; how many blocks follow."""
    header = stream.hashed(_HEADER.size)
    entries = name.last - name.first + 1
    try:
        magic, first, last, blocks = _HEADER.unpack(header)
    except StructError:
        raise DamagedBundle(key=name.key, reason="it is cut off") from None
    if (magic, first, last) != (_MAGIC, name.first, name.last) or not 0 < blocks <= entries:
        raise DamagedBundle(key=name.key, reason="its header is not what its key says")
    return int(blocks)


def blocks_of(storage: Storage, name: BundleName) -> Iterator[Block]:
    """A bundle's blocks as stored, in order; its seal is checked after the last. Raises as `entries_of`."""
    stream = Stream(storage, name.key)
    yield from read_blocks(stream, _head(stream, name), _BLOCK_BYTES, _refusal(name))


def entries_in(name: BundleName, block: Block) -> Iterator[bytes]:
    """The entries in one block of that bundle. Raises DamagedBundle."""
    refuse = _refusal(name)
    raw = unpack(block, refuse)
    offset = count = 0
    end = len(raw)
    while offset < end:
        begin = offset + _LENGTH.size
        if begin > end:
            raise refuse("an entry is cut off")
        offset = begin + _LENGTH.unpack_from(raw, begin - _LENGTH.size)[0]
        if offset - begin > MAX_ENTRY_BYTES or offset > end or count == _BLOCK_ENTRIES:
            raise refuse("a block holds more or larger entries than any may")
        yield raw[begin:offset]
        count += 1


def _refusal(name: BundleName) -> Refuse:
    return lambda reason: DamagedBundle(key=name.key, reason=reason)
