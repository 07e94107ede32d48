"""Plain bytes encoded: a file's header, a page of JSON, a chunk of a tokenizer. Needs no numpy, whose import
takes longer than all of a save in which nothing changed.
"""

from __future__ import annotations

from stemmata.codecs import zstd
from stemmata.codecs.dtypes import BYTES
from stemmata.codecs.faults import Fault
from stemmata.codecs.frames import RAW, ZSTD, write_frame_head, write_header
from stemmata.codecs.hashing import Buffer

MOST = BYTES.max_frame_bytes
"""Bytes that fit into one frame."""


def encode(data: Buffer) -> bytes:
    """The encoded object of at most `MOST` plain bytes. What is compressed has been decompressed and
    compared when this returns; what does not come back is stored as it is."""
    view = memoryview(data).cast("B")
    if not len(view):
        return write_header(BYTES, 0, 0)
    codec, payload = RAW, bytes(view)
    if len(found := zstd.compress_general(view)) < len(view) and _comes_back(found, payload):
        codec, payload = ZSTD, found
    head = write_frame_head(codec, BYTES, len(view), [payload])
    return write_header(BYTES, 1, len(view)) + head + payload


def _comes_back(compressed: bytes, data: bytes) -> bool:
    try:
        return zstd.decompress(compressed, len(data)) == data
    except Fault:
        return False
