"""Looking: what an encoded object is made of, from its header and its frames' heads. Decodes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stemmata.codecs.faults import DamagedFault, NewerFault, translated
from stemmata.codecs.frames import (
    CAST,
    DELTA,
    FRAME_OVERHEAD,
    MAX_HEADER,
    PLANES,
    RAW,
    ZSTD,
    Reference,
    peek_frame,
    read_header,
)

CODECS = {RAW: "raw", ZSTD: "zstd", PLANES: "planes", DELTA: "delta", CAST: "cast"}


@dataclass(frozen=True, slots=True)
class Look:
    """Bytes of an object's frames by codec, before and after coding; and what they lean on."""

    references: tuple[Reference, ...]
    raw: list[int]
    coded: list[int]


def look_at(stored: int, read: Callable[[int, int], memoryview], digest: str, where: str) -> Look:
    """Look at an object of `stored` bytes; `read` takes an offset in it and a length.

    Payloads are neither read nor checked. Raises DamagedObject, HostileData, NewerFormat.
    """
    with translated(digest, where):
        window, begin = read(0, min(stored, MAX_HEADER + FRAME_OVERHEAD)), 0
        header = read_header(window)
        found = Look(header.references, [0] * len(CODECS), [0] * len(CODECS))
        at = header.size
        for _ in range(header.frames):
            if at + FRAME_OVERHEAD > stored:
                raise DamagedFault("a frame lies beyond its end")
            if at + FRAME_OVERHEAD > begin + len(window):
                window, begin = read(at, FRAME_OVERHEAD), at
            if at + FRAME_OVERHEAD > begin + len(window):
                raise DamagedFault("it is cut off")
            codec, raw_length, length = peek_frame(window[at - begin :])
            if codec not in CODECS:
                raise NewerFault(f"codec {codec}")
            found.raw[codec] += raw_length
            found.coded[codec] += length
            at += FRAME_OVERHEAD + length
        return found
