"""Payloads in one call: the bytes that Python makes, and nothing accepted that Python refuses."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from stemmata.codecs import delta, kernels, native, payloads, planes, streams, zstd
from stemmata.codecs.dtypes import DType, dtype_of
from stemmata.codecs.faults import Fault
from stemmata.codecs.hashing import Buffer
from tensor_pairs import CODED, Bytes, pair

pytestmark = pytest.mark.skipif(bool(payloads.why_not), reason=payloads.why_not or "they are there")

F32 = dtype_of("F32")
FULL = F32.max_frame_bytes // F32.itemsize
GUARD = 64

coded = st.sampled_from(CODED)
counts = st.integers(1, 700) | st.sampled_from([4096, 8192, 30_011, FULL])
booleans = st.booleans()


@pytest.fixture(params=native.suffixes, autouse=True)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops for old processors, and for those of today."""
    monkeypatch.setattr(native, "suffix", request.param)


def joined(parts: list[Buffer]) -> bytes:
    return b"".join(map(bytes, parts))


def in_python(data: Bytes, base: Bytes, dtype: DType, repeats: bool) -> bytes:
    return joined(delta._written(kernels.delta_split(data, base, dtype), delta.Habits(repeats)))


def planes_in_python(data: Bytes, dtype: DType, repeats: tuple[bool, ...]) -> bytes:
    each = zip(kernels.split(data, dtype), repeats, strict=True)
    return joined([part for plane, pays in each for part in streams.write(plane, repeats=pays)])


class Guarded:
    """Memory whose neighbours are looked at afterwards."""

    def __init__(self, size: int) -> None:
        self._all = np.full(size + 2 * GUARD, 0xA5, np.uint8)
        self.into = self._all[GUARD : GUARD + size]

    def require_neighbours_whole(self) -> None:
        assert (self._all[:GUARD] == 0xA5).all()
        assert (self._all[len(self._all) - GUARD :] == 0xA5).all()


# --- the same bytes -------------------------------------------------------------------------------------


@given(coded, counts, booleans, st.integers(0, 20))
@example(F32, FULL, False, 0)
@example(dtype_of("F64"), FULL, True, 0)
@example(dtype_of("BF16"), FULL, True, 1)
def test_a_delta_is_what_python_writes_and_comes_back(
    dtype: DType, count: int, repeats: bool, seed: int
) -> None:
    data, base = pair(f"payload {seed}", count, dtype)
    found = payloads.delta_write(data, base, dtype, repeats)
    assert found is not None
    payload = bytes(found)
    assert payload == in_python(data, base, dtype, repeats)
    room = Guarded(len(data))
    assert payloads.delta_read(memoryview(payload), base, dtype, room.into)
    assert np.array_equal(room.into, data)
    room.require_neighbours_whole()


@pytest.mark.parametrize("dtype", CODED, ids=lambda d: d.word)
def test_nothing_changed_and_everything_drifted(dtype: DType) -> None:
    base = pair("still", 30_011, dtype)[1]
    words = base.view(f"<u{dtype.itemsize}")
    for data in (base, (words + words.dtype.type(2)).view(np.uint8)):
        payload = bytes(payloads.delta_write(data, base, dtype, False) or b"")
        assert payload == in_python(data, base, dtype, False)
        into = np.empty_like(data)
        assert payloads.delta_read(memoryview(payload), base, dtype, into)
        assert np.array_equal(into, data)


@given(coded, counts, st.integers(0, 255), st.integers(0, 20))
@example(F32, FULL, 255, 0)
@example(dtype_of("F64"), FULL, 255, 0)
def test_planes_are_what_python_writes_and_come_back(dtype: DType, count: int, pays: int, seed: int) -> None:
    data, _ = pair(f"planes {seed}", count, dtype)
    repeats = tuple(bool(pays >> k & 1) for k in range(dtype.itemsize))
    payload = bytes(payloads.planes_write(data, dtype, repeats) or b"")
    assert payload == planes_in_python(data, dtype, repeats)
    room = Guarded(len(data))
    assert payloads.planes_read(memoryview(payload), dtype, room.into)
    assert np.array_equal(room.into, data)
    room.require_neighbours_whole()


# --- nothing else is accepted ---------------------------------------------------------------------------


@st.composite
def spoilt(draw: st.DrawFn, payload: bytes) -> bytes:
    """Turned bits, cuts, other lengths and pieces of itself elsewhere."""
    found = bytearray(payload)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        match draw(st.integers(0, 4)):
            case 0 if found:
                found[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del found[at:]
            case 2:
                found[at:at] = draw(st.binary(max_size=9))
            case 3:
                found[at : at + 4] = draw(st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1"]))
            case _:
                found += found[at : at + 40]
    return bytes(found)


@given(st.data(), coded, st.sampled_from([1, 127, 300, 9_001]))
def test_i4_what_is_accepted_is_what_python_accepts(data: st.DataObject, dtype: DType, count: int) -> None:
    numbers, base = pair("spoilt", count, dtype)
    repeats = data.draw(booleans)
    is_delta = data.draw(booleans)
    if is_delta:
        sound = in_python(numbers, base, dtype, repeats)
    else:
        sound = planes_in_python(numbers, dtype, (repeats,) * dtype.itemsize)
    payload = memoryview(data.draw(spoilt(sound)))
    room = Guarded(len(numbers))
    if is_delta:
        taken = payloads.delta_read(payload, base, dtype, room.into)
    else:
        taken = payloads.planes_read(payload, dtype, room.into)
    room.require_neighbours_whole()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads, "_own", None)
        into = np.empty(len(numbers), np.uint8)
        try:
            if is_delta:
                delta.decode(payload, base, dtype, into)
            else:
                planes.decode(payload, dtype, into)
        except Fault:
            assert not taken
            return
    if taken:
        assert np.array_equal(room.into, into)


CONTENT = bytes(range(250)) * 20


def block(kind: int, size: int, content: bytes, last: bool = False) -> bytes:
    """Of a zstd frame: 0 as it is, 1 one byte `size` times, 2 compressed, 3 nothing that there is."""
    return (last | kind << 1 | size << 3).to_bytes(3, "little") + content


def made_by_hand() -> Iterator[tuple[str, bytes]]:
    """Frames that no compressor makes; those that begin with "sound" are."""
    magic, size = b"\x28\xb5\x2f\xfd", len(CONTENT)
    narrow, wide = b"\x60" + (size - 256).to_bytes(2, "little"), b"\xe0" + size.to_bytes(8, "little")
    first, whole = block(1, 1, CONTENT[:1]), block(0, size, CONTENT, last=True)
    rest = block(0, size - 1, CONTENT[1:], last=True)
    yield "sound, as it is", magic + narrow + whole
    yield "sound, its size in eight bytes", magic + wide + whole
    yield "sound, of several blocks", magic + narrow + first + block(0, 0, b"") + rest
    yield "of more than it states", magic + narrow + first + whole
    yield "of less than it states", magic + narrow + rest
    yield "of a size beyond all", magic + b"\xe0" + b"\xff" * 8 + whole
    yield "without a last block", magic + narrow + block(0, size, CONTENT)
    yield "with an unknown block", magic + narrow + block(3, size, CONTENT, last=True)
    yield "with a block beyond its end", magic + narrow + block(0, size + 1, CONTENT, last=True)
    yield "with a run beyond its end", magic + narrow + block(1, 1 << 20, CONTENT[:1], last=True)
    yield "with the bit that is not used", magic + bytes([narrow[0] | 16]) + narrow[1:] + whole


def frames() -> Iterator[tuple[str, bytes]]:
    """Of zstd, sound and not, that stand for CONTENT or nearly so."""
    plain = zstandard.ZstdCompressor().compress(CONTENT)
    yield "plain", plain
    for flags in ({"write_checksum": True}, {"write_content_size": False}):
        yield str(flags), zstandard.ZstdCompressor(**flags).compress(CONTENT)
    yield "of a size it does not have", plain[:5] + bytes([plain[5] ^ 1]) + plain[6:]
    yield "twice", plain + plain
    yield "and an empty one", plain + zstandard.ZstdCompressor().compress(b"")
    yield "and one to be skipped", plain + b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    yield "after one to be skipped", b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + plain
    yield "and a byte", plain + b"\0"
    yield "cut off", plain[:-1]
    yield "no magic", b"\0" + plain[1:]
    yield "nothing", b""
    yield "a head alone", plain[:6]
    windowed = zstandard.ZstdCompressionParameters(window_log=10, write_content_size=True)
    yield "with a window", zstandard.ZstdCompressor(compression_params=windowed).compress(CONTENT)
    dictionary = zstandard.ZstdCompressionDict(CONTENT[:500])
    yield "with a dictionary", zstandard.ZstdCompressor(dict_data=dictionary).compress(CONTENT)
    yield "the reserved bit", plain[:4] + bytes([plain[4] | 8]) + plain[5:]
    yield from made_by_hand()


@pytest.mark.parametrize(("name", "frame"), list(frames()))
def test_i4_a_zstd_frame_is_accepted_where_python_accepts_it(name: str, frame: bytes) -> None:
    room = Guarded(len(CONTENT))
    taken = payloads.zstd_read(memoryview(frame), room.into)
    room.require_neighbours_whole()
    try:
        content = zstd.decompress(frame, len(CONTENT))
    except Fault:
        assert not taken
        return
    assert not taken or room.into.tobytes() == content
    assert taken == (name == "plain" or name.startswith("sound"))


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 65_535, 65_536, 65_791, 65_792, 1 << 20])
@pytest.mark.parametrize("kind", ["same", "mixed"])
def test_frames_of_every_size_of_head_are_read_here(size: int, kind: str) -> None:
    content = bytes(size) if kind == "same" else (bytes(range(7)) * (size // 7 + 1))[:size]
    into = np.empty(size, np.uint8)
    assert payloads.zstd_read(memoryview(zstd.compress_general(content)), into)
    assert into.tobytes() == content


# --- memory ---------------------------------------------------------------------------------------------


def test_a_call_holds_the_memory_of_a_thread_that_is_gone() -> None:
    """A daemon thread's goes where the interpreter ends, while its call is still under way."""
    spaces: list[payloads._Space] = []
    parts: list[weakref.ref[object]] = []

    def look() -> None:
        own = payloads._own
        assert own is not None
        spaces.append(own.space)
        held = (own.spare, own.payload, own.contexts, native.scratch.tokens, native.scratch.planes)
        parts.extend(map(weakref.ref, held))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    gc.collect()
    assert all(part() is not None for part in parts)
    spaces.clear()
    gc.collect()
    assert all(part() is None for part in parts)


# --- where they are not ---------------------------------------------------------------------------------

CODE = """
import sys
if sys.argv[1] == "without":
    sys.modules["zstandard._cffi"] = None
if sys.argv[1] == "without one":
    import types
    import cffi
    library = cffi.FFI().dlopen(None)
    sys.modules["zstandard._cffi"] = types.SimpleNamespace(ffi=cffi.FFI(), lib=library)
sys.path.insert(0, "tests")
from stemmata.codecs import zstd
sound = zstd.ENTROPY
if sys.argv[1] == "refused":
    zstd.ENTROPY = sound | {"min_match": 99}
from stemmata.codecs import payloads
zstd.ENTROPY = sound
from stemmata.codecs.dtypes import dtype_of
from stemmata.codecs.objectcode import encode_object
from stemmata.ids import Digest
from tensor_pairs import pair
data, _ = pair("object", 300_001, dtype_of("F32"))
print(bool(payloads.why_not), Digest.of(bytes(encode_object(data.tobytes(), dtype_of("F32")))).hex)
"""


def test_without_the_functions_of_zstd_python_does_the_same() -> None:
    told = []
    for with_or_without in ("with", "without", "without one", "refused"):
        command = [sys.executable, "-c", CODE, with_or_without]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        told.append(done.stdout.split())
    assert [row[0] for row in told] == ["False", "True", "True", "True"]
    assert len({row[1] for row in told}) == 1
