"""Little objects, encoded in Python: a header, a page of JSON, a chunk of a tokenizer, a table of statistics.
Where nothing else changed that is all there is to code, and to import anything faster would take longer.
"""

from __future__ import annotations

from stemmata.codecs import plain, streams, zstd
from stemmata.codecs.decoding import decode_payload
from stemmata.codecs.dtypes import BYTES, LITTLE, SAMPLE, DType
from stemmata.codecs.faults import Fault
from stemmata.codecs.frames import PLANES, RAW, ZSTD, write_frame_head, write_header
from stemmata.codecs.hashing import Buffer

MOST = BYTES.max_frame_bytes
"""Plain bytes that fit into one frame."""


def suits(length: int, dtype: DType) -> bool:
    """Whether an object that leans on nothing is better encoded here."""
    if dtype is BYTES:
        return length <= MOST
    # Of more, `objectcode` would look at a sample.
    whole = length <= min(LITTLE, SAMPLE * dtype.itemsize) and not length % dtype.itemsize
    return whole and dtype.has_planes and plain.suits(length)


def encode(data: Buffer, dtype: DType = BYTES) -> bytes:
    """The encoded object, of a size that `suits`: the same bytes as `objectcode.encode_object`, on any
    machine. What is not stored as it is has been decoded and compared when this returns."""
    view = memoryview(data).cast("B")
    if not len(view):
        return write_header(dtype, 0, 0)
    codec, payload = _smallest(view, dtype)
    if codec != RAW and not _comes_back(view, codec, payload, dtype):
        codec, payload = RAW, bytes(view)
    head = write_frame_head(codec, dtype, len(view), [payload])
    return write_header(dtype, 1, len(view)) + head + payload


def _smallest(view: memoryview, dtype: DType) -> tuple[int, bytes]:
    found = [(RAW, bytes(view))]
    if dtype.has_planes:
        parts = [part for plane in plain.split(view, dtype) for part in streams.write(plane)]
        found.append((PLANES, b"".join(parts)))
    found.append((ZSTD, zstd.compress_general(view)))
    return min(found, key=lambda each: len(each[1]))  # of equals the first, as `objectcode` has it


def _comes_back(view: memoryview, codec: int, payload: bytes, dtype: DType) -> bool:
    decoded = memoryview(bytearray(len(view)))
    try:
        decode_payload(codec, memoryview(payload), None, dtype, decoded)
    except Fault:
        return False
    return decoded == view
