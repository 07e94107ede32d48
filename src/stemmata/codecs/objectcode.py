"""Objects encoded and decoded. Owns the choice of codec and the gate that decoded bytes pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from stemmata.codecs import planes, zstd
from stemmata.codecs.dtypes import BYTES, MAX_FRAME_BYTES, DType
from stemmata.codecs.faults import DamagedFault, Fault, translated
from stemmata.codecs.frames import (
    PLANES,
    RAW,
    ZSTD,
    Frame,
    read_frames,
    read_header,
    write_frame_head,
    write_header,
)
from stemmata.codecs.hashing import Buffer, digest_of
from stemmata.ids import Digest

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class _Proof(threading.local):
    """Where a thread decodes the frame that it has just encoded."""

    def __init__(self) -> None:
        self.buffer = np.zeros(MAX_FRAME_BYTES, np.uint8)


_proof = _Proof()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is tried on every frame of one object, as a sample of it suggests."""

    whole: bool
    repeats: tuple[bool, ...]


def encode_object(data: Buffer, dtype: DType, threads: Executor | None = None) -> list[Buffer]:
    """The encoded object, as parts to write one after another; some are views of `data`.

    Every frame has been decoded and compared when this returns; one that does not come back is
    stored raw. `data` that is no whole number of elements is coded as bytes. The result does not
    depend on `threads`. Raises ValueError for more than `dtype.max_object_bytes`.
    """
    view = memoryview(data).cast("B")
    if len(view) % dtype.itemsize:
        dtype = BYTES
    if len(view) > dtype.max_object_bytes:
        limit = dtype.max_object_bytes
        raise ValueError(f"an object of {dtype.word} is at most {limit} bytes, not {len(view)}")
    step = dtype.max_frame_bytes
    pieces = [view[at : at + step] for at in range(0, len(view), step)]
    parts: list[Buffer] = [write_header(dtype, len(pieces), len(view))]
    if pieces:
        plan = _plan_from(pieces[len(pieces) // 2], dtype)
        for frame in _each(partial(_encode_frame, dtype=dtype, plan=plan), pieces, threads):
            parts += frame
    return parts


def decode_object(
    encoded: Buffer, *, raw_length: int, digest: Digest, where: str, threads: Executor | None = None
) -> bytearray:
    """The content of an encoded object: the one gate that decoded bytes pass (I4).

    `where` names the pack, for messages. Raises DamagedObject if the content is not `digest`,
    HostileData before taking memory beyond FORMAT.md's limits, NewerFormat for an unknown codec.
    """
    with translated(digest.hex, where):
        view = memoryview(encoded).cast("B")
        header = read_header(view)
        if header.raw_length != raw_length:
            raise DamagedFault(f"it holds {header.raw_length} bytes where its pack says {raw_length}")
        frames = read_frames(view, header)
        content = bytearray(header.raw_length)
        into = memoryview(content)
        _each(partial(_decode_into, into), frames, threads)
        if digest_of(content) != digest:
            raise DamagedFault("its content is not what its digest says")
        return content


def verify_stored(encoded: Buffer, where: str, digest: Digest | None = None) -> None:
    """Check structure and short checksums of an encoded object without decoding it.

    Raises as `decode_object`, whose digest this cannot check.
    """
    with translated(digest.hex if digest else "(unnamed)", where):
        view = memoryview(encoded).cast("B")
        for frame in read_frames(view, read_header(view)):
            frame.require_sound()


def _each(work: Callable[[_In], _Out], items: list[_In], threads: Executor | None) -> list[_Out]:
    if threads is None or len(items) < 2:
        return [work(item) for item in items]
    found: Iterable[_Out] = threads.map(work, items)
    return list(found)


def _plan_from(sample: memoryview, dtype: DType) -> _Plan:
    if not dtype.has_planes:
        return _Plan(True, ())
    repeats = planes.repeats_pay(sample, dtype)
    split = sum(map(len, planes.encode(sample, dtype, repeats)))
    return _Plan(len(zstd.compress_general(sample)) < min(split, len(sample)), repeats)


def _encode_frame(data: memoryview, dtype: DType, plan: _Plan) -> list[Buffer]:
    """A frame's header and payload in its smallest form, proved by decoding it."""
    codec, size = RAW, len(data)
    payload: list[Buffer] = [data]
    if plan.whole and len(whole := zstd.compress_general(data)) < size:
        codec, payload, size = ZSTD, [whole], len(whole)
    if dtype.has_planes and sum(map(len, split := planes.encode(data, dtype, plan.repeats))) < size:
        codec, payload = PLANES, split
    if codec != RAW and not _comes_back(data, codec, dtype, payload):
        codec, payload = RAW, [data]
    return [write_frame_head(codec, dtype, len(data), payload), *payload]


def _comes_back(data: memoryview, codec: int, dtype: DType, payload: list[Buffer]) -> bool:
    decoded = _proof.buffer[: len(data)]
    try:
        _decode(codec, dtype, memoryview(b"".join(payload)), decoded)
    except Fault:
        return False
    return np.array_equal(decoded, np.frombuffer(data, np.uint8))


def _decode_into(content: memoryview, frame: Frame) -> None:
    frame.require_sound()
    end = frame.raw_offset + frame.raw_length
    into = np.frombuffer(content, np.uint8)[frame.raw_offset : end]
    _decode(frame.codec, frame.dtype, frame.payload, into)


def _decode(codec: int, dtype: DType, payload: memoryview, into: planes.Bytes) -> None:
    """Fill `into`, whose length the frame's header states. Raises a Fault."""
    if codec == PLANES:
        planes.decode(payload, dtype, into)
    elif codec == ZSTD:
        into[:] = np.frombuffer(zstd.decompress(payload, len(into)), np.uint8)
    else:
        into[:] = np.frombuffer(payload, np.uint8)
