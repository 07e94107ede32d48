"""Encoded objects and packs put together by hand from FORMAT.md, sound or not; no code of the store."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from blake3 import blake3


def check(data: bytes) -> bytes:
    return blake3(data).digest()[:8]


def header(
    *,
    frames: int,
    raw: int,
    dtype: int = 0,
    magic: int = 0xB5,
    layout: int = 1,
    references: int = 0,
    bases: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """`bases`: names of packs and digests; or `references` to nothing."""
    named = b"".join(pack + digest for pack, digest in bases) or bytes(48) * references
    head = struct.pack("<BBBBIQ", magic, layout, dtype, len(named) // 48, frames, raw) + named
    return head + check(head)


def frame(
    payload: bytes,
    *,
    raw: int | None = None,
    codec: int = 0,
    dtype: int = 0,
    stored: int | None = None,
    reserved: tuple[int, int] = (0, 0),
) -> bytes:
    raw = len(payload) if raw is None else raw
    stored = len(payload) if stored is None else stored
    head = struct.pack("<BBHIII", codec, dtype, reserved[0], raw, stored, reserved[1])
    return head + check(head + payload) + payload


def plane(data: bytes, mode: int = 0, stored: int | None = None) -> bytes:
    return struct.pack("<BI", mode, len(data) if stored is None else stored) + data


def raw_object(content: bytes) -> bytes:
    """The plainest encoding of up to 1 MiB."""
    return header(frames=1, raw=len(content)) + frame(content)


def row(digest: bytes, offset: int, stored: int, raw: int, checksum: bytes) -> bytes:
    return struct.pack("<32sQQQ8s", digest, offset, stored, raw, checksum)


def pack(body: bytes, rows: Sequence[bytes], **changes: object) -> bytes:
    """A pack of `body` after the magic and the given rows; `changes` replaces fields of the footer."""
    index = b"".join(rows)
    fields: dict[str, object] = {
        "start": b"STMPACK1",
        "offset": 8 + len(body),
        "count": len(rows),
        "digest": blake3(index).digest(),
        "reserved": 0,
        "end": b"STMPKEND",
    }
    assert set(changes) <= set(fields)
    start, *footer = (fields | changes).values()
    return start + body + index + struct.pack("<QQ32sQ8s", *footer)  # type: ignore[operator, no-any-return]


def sound_pack(contents: Sequence[bytes]) -> bytes:
    body, rows = b"", []
    for content in contents:
        encoded = raw_object(content)
        rows.append(row(blake3(content).digest(), 8 + len(body), len(encoded), len(content), check(encoded)))
        body += encoded
    return pack(body, sorted(rows))
