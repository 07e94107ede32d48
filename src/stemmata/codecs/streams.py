"""Streams: runs of bytes inside a frame's payload, each stored as it is smallest. Owns how they are framed.

A stream is mode u8, stored length u32, bytes. How many bytes it stands for is known to whoever reads it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeAlias

from stemmata.codecs import zstd
from stemmata.codecs.faults import DamagedFault
from stemmata.codecs.hashing import Buffer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_HEAD = struct.Struct("<BI")
_RAW, _ZSTD = 0, 1

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Memory: TypeAlias = "Buffer | Bytes"
"""Bytes in a row, whoever holds them: what needs no numpy takes these."""


def view(memory: Memory) -> memoryview:
    """The bytes where they lie."""
    return memoryview(memory)  # type: ignore[arg-type]  # an array's too, which its stubs do not tell


def as_array(memory: Memory) -> Bytes:
    """The bytes where they lie, as numpy has them."""
    import numpy as np

    return np.frombuffer(memory, np.uint8)


def write(data: Memory, *, entropy: bool = True, repeats: bool = True) -> list[Buffer]:
    """The stream, in parts, the smallest of what is tried: as it is, and

    `entropy`: by the frequencies of bytes alone; zstd gives up on noise at once, so that trying costs
    little. `repeats`: by repeats too, which takes longer.
    """
    raw = view(data)
    best: Buffer = raw
    if len(data):
        for tried, compress in ((entropy, zstd.compress_entropy), (repeats, zstd.compress_general)):
            if tried and len(found := compress(raw)) < len(best):
                best = found
    return [_HEAD.pack(_RAW if best is raw else _ZSTD, len(best)), best]


def repeats_pay(data: Memory) -> bool:
    """Whether repeats are worth looking for in streams like this one."""
    if not len(data):
        return False
    without = min(len(data), len(zstd.compress_entropy(view(data))))
    return len(zstd.compress_general(view(data))) < without


class Reader:
    """Takes the streams of one payload, in order."""

    def __init__(self, payload: memoryview, at: int = 0) -> None:
        self._payload = payload
        self._at = at

    def take(self, count: int) -> Bytes:
        """The next stream, which stands for `count` bytes. Raises DamagedFault, HostileFault."""
        import numpy as np

        return np.frombuffer(self.take_plain(count), np.uint8)

    def take_plain(self, count: int) -> Buffer:
        """As `take`, for who has no numpy."""
        mode, stored = self._next()
        if mode == _ZSTD:
            return zstd.decompress(stored, count)
        if len(stored) != count:
            raise DamagedFault(f"a stream of {count} bytes holds {len(stored)}")
        return stored

    def take_raw(self, most: int) -> Bytes:
        """The next stream, which is stored as it is. Raises DamagedFault."""
        import numpy as np

        mode, stored = self._next()
        if mode != _RAW or len(stored) > most:
            raise DamagedFault(f"a stream of at most {most} bytes holds {len(stored)}")
        return np.frombuffer(stored, np.uint8)

    def require_end(self) -> None:
        if self._at != len(self._payload):
            raise DamagedFault("bytes follow the last stream")

    def _next(self) -> tuple[int, memoryview]:
        if len(self._payload) - self._at < _HEAD.size:
            raise DamagedFault("a stream is cut off")
        mode, stored = _HEAD.unpack_from(self._payload, self._at)
        begin = self._at + _HEAD.size
        if stored > len(self._payload) - begin:
            raise DamagedFault("a stream is longer than its frame")
        if mode > _ZSTD:
            raise DamagedFault(f"a stream has the unknown mode {mode}")
        self._at = begin + stored
        return mode, self._payload[begin : self._at]
