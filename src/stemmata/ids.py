"""Ids: digests, version ids, pack names. Owns what an id is; a str is never a digest."""

from __future__ import annotations

import os
import re
from typing import ClassVar, Self

import msgspec
from blake3 import blake3

SHORT = 12
"""How many hex digits of an id people are shown."""
_PACK_KEY = re.compile(r"packs/[0-9a-f]{2}/([0-9a-f]{32})\.pack", re.ASCII)
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


class _FixedBytes(msgspec.Struct, frozen=True, order=True):
    """`SIZE` bytes that are written as lower-case hex."""

    raw: bytes
    SIZE: ClassVar[int] = 32

    def __post_init__(self) -> None:
        if len(self.raw) != self.SIZE:
            raise ValueError(f"{type(self).__name__} takes {self.SIZE} bytes, got {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From lower-case hex; ValueError for anything else."""
        if len(text) != 2 * cls.SIZE or text.strip("0123456789abcdef"):
            raise ValueError(f"not {2 * cls.SIZE} lower-case hex digits")
        return cls(bytes.fromhex(text))

    @property
    def hex(self) -> str:
        return self.raw.hex()

    def __str__(self) -> str:
        return self.hex


class Digest(_FixedBytes, frozen=True, order=True):
    """BLAKE3-256 of some bytes."""

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """Digest of `data`, on one thread."""
        return cls(blake3(data).digest())

    @property
    def short(self) -> str:
        return self.hex[:SHORT]


class VersionId(Digest, frozen=True, order=True):
    """BLAKE3-256 of a record's bytes as first written."""


class PackName(_FixedBytes, frozen=True, order=True):
    """16 random bytes, never reused."""

    SIZE: ClassVar[int] = 16

    @classmethod
    def fresh(cls) -> Self:
        return cls(os.urandom(cls.SIZE))

    @classmethod
    def in_key(cls, key: str) -> Self | None:
        """The pack that lies under a key of the repository; None for a key of something else."""
        found = _PACK_KEY.fullmatch(key)
        return cls(bytes.fromhex(found[1])) if found else None

    @property
    def key(self) -> str:
        """Where the pack lies in the repository."""
        return f"packs/{self.hex[:2]}/{self.hex}.pack"


def random_hex(size: int) -> str:
    """`size` random bytes in hex. What `secrets` gives, whose import takes OpenSSL's with it."""
    return os.urandom(size).hex()


def random_letters(count: int) -> str:
    """`count` letters and digits at random, of those 32 that no reader mistakes for others."""
    return "".join([_LETTERS[byte & 31] for byte in os.urandom(count)])


def fresh_txn() -> str:
    """A transaction's own id: 32 random hex digits."""
    return random_hex(16)
