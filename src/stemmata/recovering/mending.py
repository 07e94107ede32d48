"""Mending: a sealed text put right from its own damaged bytes. Owns what is tried.

A seal of 256 bits tells the one text that was meant from all others: where a single byte changed, trying
finds it; where only the seal itself was hit, the hash that the next entry holds proves the body.
"""

from __future__ import annotations

from collections.abc import Iterator

from blake3 import blake3

from stemmata.ids import Digest
from stemmata.log.entries import seal

SEAL = 66
"""Bytes of a seal."""
_WORK = 2 << 30
"""Bytes that are hashed for one text, at most: a second or two."""
_ENDS = 4


def seal_in(data: bytes) -> bytes | None:
    """The seal at the end of a text, if it has the form of one."""
    line = data[-SEAL:]
    hex_digits = line[1:-1]
    if len(line) != SEAL or line[:1] + line[-1:] != b"\n\n" or hex_digits.strip(b"0123456789abcdef"):
        return None
    return line


def mended(data: bytes, wanted: Digest | None) -> bytes | None:
    """The text that `data` was, held against its hash, or where that is not known against its own seal."""
    if wanted is not None:
        for body in _bodies(data):
            text = seal(body)
            if Digest.of(text) == wanted:
                return text
    line = seal_in(data)
    if line is None:
        return None
    found = _one_byte_off(data[:-SEAL], bytes.fromhex(line[1:-1].decode("ascii")))
    if found is None or (wanted is not None and Digest.of(found + line) != wanted):
        return None
    return found + line


def _bodies(data: bytes) -> Iterator[bytes]:
    """What may be the body where the seal is cut, changed or followed by more."""
    end = len(data)
    for _ in range(_ENDS):
        end = data.rfind(b"}", 0, end)
        if end < 0:
            return
        yield data[: end + 1]


def _one_byte_off(body: bytes, wanted: bytes) -> bytes | None:
    """The body with this hash that differs from `body` in one byte; one bit is tried first."""
    tried = bytearray(body)
    for changes in ([1 << bit for bit in range(8)], [c for c in range(1, 256) if c & (c - 1)]):
        if len(changes) * len(body) ** 2 > _WORK:
            return None
        for at in range(len(tried)):
            before = tried[at]
            for change in changes:
                tried[at] = before ^ change
                if blake3(tried).digest() == wanted:
                    return bytes(tried)
            tried[at] = before
    return None
