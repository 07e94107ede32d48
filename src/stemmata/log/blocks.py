"""Blocks: compressed pieces one after another with a seal behind them. Owns how they are read, and what is
refused.

Bundles and checkpoints are made of them (FORMAT.md, 3.3 and 3.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import TypeAlias

from blake3 import blake3

from stemmata.errors import Damage
from stemmata.storage.base import Storage

Block: TypeAlias = tuple[int, bytes]
"""Raw length of a piece, and its zstd frame."""
Refuse: TypeAlias = Callable[[str], Damage]
"""Makes the error of what is being read, for a reason."""

SEAL = 32
_BLOCK = Struct("<II")
_READ_BYTES = 4 << 20


class Stream:
    """A key's bytes in order, hashed as they pass."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage, self._key = storage, key
        self._offset = 0
        self._held = b""
        self.hasher = blake3()

    def take(self, length: int) -> bytes:
        """The next `length` bytes; fewer at the end of the key."""
        if len(self._held) < length:
            more = self._storage.get(self._key, self._offset, max(length - len(self._held), _READ_BYTES))
            self._offset += len(more)
            self._held += more
        taken, self._held = self._held[:length], self._held[length:]
        return taken

    def hashed(self, length: int) -> bytes:
        """As `take`, of what the seal is over."""
        taken = self.take(length)
        self.hasher.update(taken)
        return taken


def encode_block(raw_length: int, stored: bytes) -> bytes:
    return _BLOCK.pack(raw_length, len(stored)) + stored


def read_blocks(stream: Stream, count: int, largest: int, refuse: Refuse) -> Iterator[Block]:
    """So many blocks as stored, in order; the seal is checked after the last. `largest`: raw bytes of one."""
    for _ in range(count):
        head = stream.hashed(_BLOCK.size)
        if len(head) < _BLOCK.size:
            raise refuse("it is cut off")
        raw_length, stored_length = _BLOCK.unpack(head)
        # zstd never needs more than this for bytes that do not shrink.
        if raw_length > largest or stored_length > raw_length + (raw_length >> 7) + 1024:
            raise refuse("a block is larger than any may be")
        stored = stream.hashed(stored_length)
        if len(stored) < stored_length:
            raise refuse("it is cut off")
        yield raw_length, stored
    if stream.take(SEAL + 1) != stream.hasher.digest():
        raise refuse("its seal does not fit its content")


def unpack(block: Block, refuse: Refuse) -> bytes:
    """What a block holds."""
    import zstandard

    raw_length, stored = block
    try:
        if zstandard.get_frame_parameters(stored).content_size != raw_length:
            raise refuse("a block does not have the size that it states")
        # Bounded by the check above: the frame states its size, and may not exceed it.
        return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise refuse(f"a block cannot be decompressed: {error}") from None
