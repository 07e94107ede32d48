"""Checkpoints: a catalog in one key, so that a reader without any need not fold the whole log.

Owns their keys and bytes (FORMAT.md, 3.5).

A checkpoint is never needed and never evidence (I8); see `restoring` for what is asked of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from struct import error as StructError

import msgspec
from blake3 import blake3

from stemmata.catalog.schema import VERSION
from stemmata.errors import DamagedCheckpoint
from stemmata.ids import Digest, random_hex
from stemmata.log.blocks import Refuse, Stream, encode_block, read_blocks, unpack
from stemmata.log.entries import Position
from stemmata.storage.base import Storage

EVERY = 4096
"""Entries between two of them, at least; saves write one only behind a multiple of it."""
_SHARE = 32
"""A longer log gets one when it has grown by this part of itself: then all of them together cost each commit
the same, however many there were before."""

_FOLDER = "checkpoints/"
_KEY = re.compile(r"checkpoints/(\d{1,9})/(\d{20})-([0-9a-f]{16})\.checkpoint", re.ASCII)
_MAGIC = b"STMCHKP1"
_HEADER = Struct("<8sIIQQ32s")
_BLOCK_BYTES = 4 << 20
_EXPANSION = 256
"""Raw bytes that one stored byte may stand for, beyond a block: what a stranger could fill a disk with."""


class CheckpointName(msgspec.Struct, frozen=True):
    """What a checkpoint's key says of it: the shape of its tables, and the entry that it goes up to."""

    schema: int
    n: int
    nonce: str

    @property
    def key(self) -> str:
        return f"{_FOLDER}{self.schema}/{self.n:020d}-{self.nonce}.checkpoint"

    @classmethod
    def parse(cls, key: str) -> CheckpointName | None:
        """None for a key that no checkpoint may have."""
        match = _KEY.fullmatch(key)
        name = cls(int(match[1]), int(match[2]), match[3]) if match is not None else None
        return name if name is not None and name.n and name.key == key else None

    @classmethod
    def fresh(cls, n: int) -> CheckpointName:
        return cls(VERSION, n, random_hex(8))


class Head(msgspec.Struct, frozen=True):
    """What a checkpoint says of itself: the hash of its entry, and how much it holds."""

    hash: Digest
    raw: int
    blocks: int


def find_checkpoints(storage: Storage, schema: int | None = VERSION) -> list[CheckpointName]:
    """Those of a schema (None: of any), by their keys alone; the newest first."""
    prefix = _FOLDER if schema is None else f"{_FOLDER}{schema}/"
    found = (CheckpointName.parse(key.key) for key in storage.list(prefix))
    return sorted((name for name in found if name is not None), key=lambda name: (-name.n, name.nonce))


def due_after(newest: int) -> int:
    """At which entry the next one is due; `newest`: the one that the last goes up to, or 0."""
    grown = newest + max(EVERY, newest // _SHARE)
    return (grown + EVERY - 1) // EVERY * EVERY


def head_of(storage: Storage, name: CheckpointName) -> Head:
    """Raises DamagedCheckpoint, KeyMissing, and the storage's errors."""
    return _head(storage.get(name.key, 0, _HEADER.size), storage.size(name.key), name)


def image_of(storage: Storage, name: CheckpointName) -> Iterator[bytes]:
    """The catalog's file that it holds, piece by piece; that it is as it was written shows at the end. Raises
    as `head_of`."""
    stream, refuse = Stream(storage, name.key), refusal(name)
    head = _head(stream.hashed(_HEADER.size), storage.size(name.key), name)
    left = head.raw
    for block in read_blocks(stream, head.blocks, _BLOCK_BYTES, refuse):
        left -= block[0]
        if left < 0:
            break
        yield unpack(block, refuse)
    if left:
        raise refuse("it does not hold as much as it states")


def write_checkpoint(storage: Storage, here: Position, image: Path) -> CheckpointName:
    """Write a catalog's file as the checkpoint of entry `here`. Raises the storage's errors and OSError."""
    import zstandard

    name, size = CheckpointName.fresh(here.n), image.stat().st_size
    # Higher levels take many times as long, for a hundredth of the bytes: ids and digests are most of them.
    compressor = zstandard.ZstdCompressor(level=1)
    new = storage.start_new(name.key)
    try:
        blocks = (size + _BLOCK_BYTES - 1) // _BLOCK_BYTES
        header = _HEADER.pack(_MAGIC, name.schema, blocks, here.n, size, here.hash.raw)
        seal = blake3(header)
        new.write(header)
        with image.open("rb") as file:
            while piece := file.read(_BLOCK_BYTES):
                block = encode_block(len(piece), compressor.compress(piece))
                seal.update(block)
                new.write(block)
        new.write(seal.digest())
        new.commit()
    finally:
        new.abort()
    return name


def refusal(name: CheckpointName) -> Refuse:
    return lambda reason: DamagedCheckpoint(key=name.key, reason=reason)


def _head(header: bytes, size: int, name: CheckpointName) -> Head:
    """Read a header; `size`: stored bytes of the whole."""
    refuse = refusal(name)
    try:
        magic, schema, blocks, n, raw, digest = _HEADER.unpack(header)
    except StructError:
        raise refuse("it is cut off") from None
    if (magic, schema, n) != (_MAGIC, name.schema, name.n):
        raise refuse("its header is not what its key says")
    if raw > _BLOCK_BYTES + _EXPANSION * size or blocks > size:
        raise refuse("it claims to hold more than any may")
    return Head(Digest(digest), raw, blocks)
