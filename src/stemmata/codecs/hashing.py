"""Hashes of stored and of decoded bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from blake3 import blake3

from stemmata.ids import Digest

Buffer: TypeAlias = bytes | bytearray | memoryview

CHECK_SIZE = 8


def digest_of(data: Buffer) -> Digest:
    """BLAKE3-256 of `data`, on this thread: others have objects of their own to hash."""
    return Digest(blake3(data).digest())


def check_of(parts: Iterable[Buffer]) -> bytes:
    """The short checksum of stored bytes: the first 8 bytes of BLAKE3 of the parts, joined."""
    state = blake3()
    for part in parts:
        state.update(part)
    return state.digest(length=CHECK_SIZE)
