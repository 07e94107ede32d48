"""zstd with this format's limits. Owns the parameters used to write and the checks before reading."""

from __future__ import annotations

import threading

import zstandard

from stemmata.codecs.faults import DamagedFault, HostileFault
from stemmata.codecs.hashing import Buffer

MAX_WINDOW = 8 << 20
GENERAL_LEVEL = 3

# With these, matches are all but impossible and zstd is a plain Huffman coder: for an exponent plane
# smaller and faster than any level. A smaller window costs bytes and time.
ENTROPY = {
    "strategy": zstandard.STRATEGY_FAST,
    "min_match": 7,
    "target_length": 0,
    "hash_log": 6,
    "chain_log": 6,
    "search_log": 1,
    "window_log": 17,
}


class _Contexts(threading.local):
    """A (de)compressor belongs to one thread."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters(**ENTROPY)
        self.entropy = zstandard.ZstdCompressor(compression_params=parameters)
        self.general = zstandard.ZstdCompressor(level=GENERAL_LEVEL)
        self.reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)


_contexts = _Contexts()


def compress_entropy(data: Buffer) -> bytes:
    """One frame that states its size; only the frequencies of bytes are made use of."""
    return _contexts.entropy.compress(data)


def compress_general(data: Buffer) -> bytes:
    """One frame that states its size; repeats are made use of too. At most 8 MiB at a time."""
    return _contexts.general.compress(data)


def decompress(data: Buffer, expected: int) -> bytes:
    """The content of exactly one frame that states exactly `expected` bytes.

    Raises DamagedFault, or HostileFault for a frame that wants more memory than it may.
    """
    try:
        frame = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError:
        raise DamagedFault("a zstd frame has no sound header") from None
    if frame.content_size == zstandard.CONTENTSIZE_UNKNOWN:
        raise DamagedFault("a zstd frame does not state its size")
    if frame.content_size > expected:
        raise HostileFault(f"a zstd frame of {expected} bytes states {frame.content_size}")
    if frame.content_size != expected:
        raise DamagedFault(f"a zstd frame of {expected} bytes states {frame.content_size}")
    if frame.window_size > MAX_WINDOW:
        raise HostileFault(f"a zstd frame wants a window of {frame.window_size} bytes")
    if frame.dict_id:
        raise DamagedFault("a zstd frame wants a dictionary")
    try:
        content = _contexts.reader.decompress(data, max_output_size=expected, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedFault(f"zstd: {error}") from None
    if len(content) != expected:
        raise DamagedFault(f"a zstd frame of {expected} bytes holds {len(content)}")
    return content
