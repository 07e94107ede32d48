"""Hashes of stored and of decoded bytes. Owns when BLAKE3 may use many threads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeAlias

from blake3 import blake3

from stemmata.ids import Digest

Buffer: TypeAlias = bytes | bytearray | memoryview

CHECK_SIZE = 8
THREADS_FROM = 1 << 20
"""Below this many bytes in one call, starting threads costs more than they save."""

_forked = False


def hasher(call_size: int) -> blake3:
    """A BLAKE3 hasher that will be fed about `call_size` bytes per call."""
    # BLAKE3's threads do not follow a fork: a child that asked for them would wait for ever.
    return blake3(max_threads=blake3.AUTO if call_size >= THREADS_FROM and not _forked else 1)


def digest_of(data: Buffer) -> Digest:
    """BLAKE3-256 of `data`, on as many threads as pay."""
    return Digest(hasher(len(data)).update(data).digest())


def check_of(parts: Iterable[Buffer]) -> bytes:
    """The short checksum of stored bytes: the first 8 bytes of BLAKE3 of the parts, joined."""
    state = blake3()
    for part in parts:
        state.update(part)
    return state.digest(length=CHECK_SIZE)


def _remember_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_fork)
