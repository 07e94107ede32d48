"""Deltas: every tensor against every base comes back bit for bit (I3), as the format says and no larger."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crafted_objects import frame, header, plane
from golden.second_reader import decoded as told
from kernel_choices import WAYS, use
from stemmata.codecs import delta
from stemmata.codecs.decoding import Fetch, ObjectDecoder, Stored, decode_object, no_bases
from stemmata.codecs.dtypes import DType, dtype_of
from stemmata.codecs.frames import Reference
from stemmata.codecs.objectcode import Base, StoredBase, encode_object, fits
from stemmata.errors import DamagedObject
from stemmata.ids import Digest, PackName
from tensor_pairs import CODED, pair

PACK = PackName(bytes(16))
F32 = dtype_of("F32")

coded = st.sampled_from(CODED)


class Shelf:
    """Encoded objects that others may lean on."""

    def __init__(self) -> None:
        self.held: dict[bytes, tuple[bytes, int]] = {}

    def put(self, content: bytes, dtype: DType, base: Base | None = None, **rest: ThreadPoolExecutor) -> Base:
        encoded = bytes(encode_object(content, dtype, rest.get("threads"), base))
        self.held[Digest.of(content).raw] = encoded, len(content)
        return Base(Reference(PACK, Digest.of(content)), dtype, memoryview(content))

    def encoded(self, content: bytes) -> bytes:
        return self.held[Digest.of(content).raw][0]

    def read(self, content: bytes) -> bytearray:
        fetch: Fetch = self.fetch
        return decode_object(
            self.encoded(content),
            raw_length=len(content),
            digest=Digest.of(content),
            where="test",
            fetch=fetch,
        )

    def fetch(self, base: Reference) -> Stored:
        assert base.pack == PACK
        encoded, length = self.held[base.digest.raw]
        return Stored(encoded, length, base.digest, "base")

    def by_the_page(self, content: bytes) -> bytes:
        """As the second reader reads it, which was made from FORMAT.md alone."""
        return told(self.encoded(content), lambda pack, name: self.held[name][0])


def codecs_of(encoded: bytes) -> list[int]:
    found, at = [], 24 + 48 * encoded[3]
    while at < len(encoded):
        found.append(encoded[at])
        at += 24 + int.from_bytes(encoded[at + 8 : at + 12], "little")
    return found


def payload_of(data: bytes, base: bytes, dtype: DType) -> bytes:
    arrays = [np.frombuffer(content, np.uint8) for content in (data, base)]
    return b"".join(delta.encode(*arrays, dtype, delta.Habits(repeats=True)))


def back(payload: bytes, base: bytes, dtype: DType) -> bytes:
    into = np.zeros(len(base), np.uint8)
    delta.decode(memoryview(payload), np.frombuffer(base, np.uint8), dtype, into)
    return into.tobytes()


# --- every bit pattern ----------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", WAYS)
@given(dtype=coded, count=st.integers(1, 5_000), seed=st.integers(0, 1 << 30))
@example(dtype=CODED[0], count=1, seed=0)
@example(dtype=dtype_of("F64"), count=1, seed=3)
@settings(max_examples=60)
def test_i3_a_payload_comes_back(kernel: ModuleType, dtype: DType, count: int, seed: int) -> None:
    data, base = (array.tobytes() for array in pair(str(seed), count, dtype))
    with pytest.MonkeyPatch.context() as patched:
        use(kernel, patched)
        assert back(payload_of(data, base, dtype), base, dtype) == data


@given(dtype=coded, data=st.data())
def test_i3_any_bits_against_any_bits(dtype: DType, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40)) * dtype.itemsize
    content, base = (data.draw(st.binary(min_size=size, max_size=size)) for _ in "ab")
    assert back(payload_of(content, base, dtype), base, dtype) == content


@pytest.mark.parametrize("dtype", CODED, ids=lambda d: d.word)
@pytest.mark.parametrize("ragged", [1, 127, 128, 129])
def test_i3_frames_and_blocks_that_end_early(dtype: DType, ragged: int) -> None:
    count = (128 << 10) + ragged
    data, base = (array.tobytes() for array in pair("ragged", count, dtype))
    shelf = Shelf()
    shelf.put(data, dtype, shelf.put(base, dtype))
    assert shelf.read(data) == data
    assert 3 in codecs_of(shelf.encoded(data))


def test_an_empty_object_leans_on_nothing() -> None:
    shelf = Shelf()
    base = shelf.put(b"", F32)
    assert shelf.put(b"", F32, base) is not None
    assert shelf.encoded(b"") == header(frames=0, raw=0, dtype=12)


# --- as the format says -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", CODED, ids=lambda d: d.word)
def test_the_second_reader_reads_the_same(dtype: DType) -> None:
    data, base = (array.tobytes() for array in pair("page", 13_001, dtype))
    shelf = Shelf()
    shelf.put(data, dtype, shelf.put(base, dtype))
    assert codecs_of(shelf.encoded(data)) == [3]
    assert shelf.by_the_page(data) == data == shelf.read(data)


def crafted(content: bytes, base: bytes, dtype: int, streams: list[bytes]) -> Shelf:
    """A delta put together by hand on a raw base."""
    shelf = Shelf()
    shelf.held[Digest.of(base).raw] = (
        header(frames=1, raw=len(base), dtype=dtype) + frame(base, dtype=dtype),
        len(base),
    )
    out = header(frames=1, raw=len(content), dtype=dtype, bases=[(PACK.raw, Digest.of(base).raw)])
    out += frame(b"\0" + b"".join(map(plane, streams)), raw=len(content), codec=3, dtype=dtype)
    shelf.held[Digest.of(content).raw] = out, len(content)
    return shelf


def test_integers_by_hand() -> None:
    """+1, -1, +7, -8, +8, -9, +127 and a step around the end; one group, raw bits from the lowest bit up."""
    base = [10, 10, 10, 10, 10, 10, 10, 0]
    data = [11, 9, 17, 2, 18, 1, 137, 0xFFFF]
    # z: 2 1 14 15 16 17 254 1. 16 = 2^4: token 16, one raw bit 0; 17: the same, 1; 254 = 2^7 + 126: its three
    # bits after the highest are 111, token 16 + 3 * 8 + 7 = 47, four raw bits 1110.
    tokens = bytes([2, 1, 14, 15, 16, 16, 47, 1])
    raw = bytes([0b0_1110_1_0 & 0xFF])
    shelf = crafted(struct.pack("<8H", *data), struct.pack("<8H", *base), 7, [b"\1", tokens, raw])
    assert shelf.read(struct.pack("<8H", *data)) == struct.pack("<8H", *data)
    parts = payload_of(struct.pack("<8H", *data), struct.pack("<8H", *base), dtype_of("U16"))
    assert parts == b"".join(map(plane, [b"\1", tokens, raw]))


def test_floats_by_hand() -> None:
    """Signs are turned with the base's; the step over zero is one; few elements are one group."""
    base = [0x3F800000, 0xBF800000, 0x00000000, 0x80000000]
    data = [0x3F800001, 0xBF800001, 0x80000000, 0x00000000]
    # In order: 1.0 up by one: z 2. -1.0 away from zero, down by one, turned: up, z 2. 0 -> -0: down, z 1;
    # -0 -> 0: up, turned: down, z 1.
    streams = [b"\1", bytes([2, 2, 1, 1]), b""]
    content, under = struct.pack("<4I", *data), struct.pack("<4I", *base)
    assert crafted(content, under, 12, streams).read(content) == content
    assert payload_of(content, under, F32) == b"".join(map(plane, streams))


def test_groups_by_hand() -> None:
    """4096 elements of the smallest exponent make a group; the two of larger ones after it join it."""
    base = struct.pack("<4098B", 0x78, *[0x08] * 4096, 0x40)
    data = struct.pack("<4098B", 0x79, *[0x08] * 4096, 0x42)
    classes = bytes([1, *[1] * 31, 1])
    tokens = bytes([2, *[0] * 4096, 4])
    shelf = crafted(data, base, 4, [classes, tokens, b""])
    assert shelf.read(data) == data
    # One more of a third key than the rest needs: two groups of 4096, ascending by exponent.
    base = bytes([0x40] * 4096 + [0x08] * 4096)
    data = bytes([0x41] * 4096 + [0x0A] * 4096)
    shelf = crafted(data, base, 4, [b"\1" * 64, b"\4" * 4096, b"\2" * 4096, b""])
    assert shelf.read(data) == data


def test_drifted_and_same_blocks_by_hand() -> None:
    """The first block stays; the second has fallen, its elements in the order of their bases' mantissas."""
    base = [0x3F800000] * 128 + [0x3FFF0000, 0x3F800000, 0x3F810000, 0x40000000]
    data = [0x3F800000] * 128 + [0x3FFF0000 - 300, 0x3F800000 - 1, 0x3F810000 - 2, 0x40000000 - 3]
    # z of -d is 2d - 1: 599, 1, 3, 5. First six bits of the mantissas: 63, 0, 0, 0.
    low, high = bytes([1, 3, 5, 599 & 255]), bytes([0, 0, 0, 599 >> 8])
    content, under = struct.pack("<132I", *data), struct.pack("<132I", *base)
    streams = [b"\0\2", b"", low, high]
    assert crafted(content, under, 12, streams).read(content) == content
    assert back(payload_of(content, under, F32), under, F32) == content
    assert payload_of(content, under, F32)[:7] == plane(b"\0\2")


def test_a_delta_on_the_rounding_of_a_wider_tensor_by_hand() -> None:
    wide = struct.pack("<2I", 0x3F808000, 0x3F818000)
    content = struct.pack("<2H", 0x3F80, 0x3F83)
    shelf = crafted(content, wide, 9, [b"\1", bytes([0, 2]), b""])
    shelf.held[Digest.of(wide).raw] = header(frames=1, raw=8, dtype=12) + frame(wide, dtype=12), 8
    assert shelf.read(content) == content


# --- chains, sizes, threads ---------------------------------------------------------------------------


def test_i3_a_chain_of_eight_is_read() -> None:
    shelf, contents = Shelf(), [pair("chain", 1_000, F32)[1].tobytes()]
    base = shelf.put(contents[0], F32)
    for step in range(8):
        words = np.frombuffer(contents[-1], "<u4").copy()
        words[step * 50 : step * 50 + 50] += np.uint32(1 + step)
        contents.append(words.tobytes())
        base = shelf.put(contents[-1], F32, base)
        assert codecs_of(shelf.encoded(contents[-1])) == [3]
    for content in contents:
        assert shelf.read(content) == content
        assert shelf.by_the_page(content) == content


def test_what_did_not_change_costs_a_byte_for_each_block() -> None:
    content = pair("same", 100_000, F32)[1].tobytes()
    payload = payload_of(content, content, F32)
    assert len(payload) <= 10 + 782


def test_a_small_step_takes_two_thirds_of_what_it_takes_alone() -> None:
    rng = np.random.default_rng(5)
    base = (rng.standard_normal(200_000) * 0.02).astype("<f4")
    data = (base + rng.standard_normal(200_000).astype("<f4") * 3e-5).astype("<f4").tobytes()
    shelf = Shelf()
    shelf.put(data, F32, shelf.put(base.tobytes(), F32))
    alone = len(encode_object(data, F32))
    assert len(shelf.encoded(data)) < 0.67 * alone
    assert shelf.read(data) == data


def test_a_base_that_does_not_help_leaves_the_object_as_it_would_be_alone() -> None:
    data, base = (np.random.default_rng(n).bytes(4 * 100_000) for n in (1, 2))
    shelf = Shelf()
    shelf.put(data, F32, shelf.put(base, F32))
    assert shelf.encoded(data) == bytes(encode_object(data, F32))
    assert shelf.encoded(data)[3] == 0


def test_threads_change_no_bytes() -> None:
    data, base = (array.tobytes() for array in pair("threads", 600_000, F32))
    one, many = Shelf(), Shelf()
    one.put(data, F32, one.put(base, F32))
    with ThreadPoolExecutor(3) as threads:
        many.put(data, F32, many.put(base, F32), threads=threads)
    assert one.encoded(data) == many.encoded(data)


def test_all_ways_make_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for choice in WAYS:
        if any(mark.args[0] for mark in choice.marks):
            pytest.skip(str(choice.marks[0].kwargs["reason"]))
        shelf = Shelf()
        with monkeypatch.context() as patched:
            use(choice.values[0], patched)
            for dtype in CODED:
                data, base = (array.tobytes() for array in pair("objects", 9_001, dtype))
                shelf.put(data, dtype, shelf.put(base, dtype))
        made.append(shelf.held)
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize(
    ("dtype", "length", "base", "base_length", "answer"),
    [
        ("F32", 400, "F32", 400, True),
        ("F32", 400, "F32", 404, False),
        ("F32", 400, "I32", 400, False),
        ("BF16", 200, "F32", 400, True),
        ("F16", 200, "F32", 400, True),
        ("F16", 200, "BF16", 200, False),
        ("F16", 200, "F32", 200, False),
        ("F64", 800, "F32", 400, False),
        ("BOOL", 8, "BOOL", 8, False),
        ("", 8, "", 8, False),
    ],
)
def test_what_may_lean_on_what(dtype: str, length: int, base: str, base_length: int, answer: bool) -> None:
    assert fits(dtype_of(dtype), length, dtype_of(base), base_length) == answer
    if not answer:
        under = Base(Reference(PACK, Digest.of(b"")), dtype_of(base), memoryview(bytes(base_length)))
        with pytest.raises(ValueError, match="no base"):
            encode_object(bytes(length), dtype_of(dtype), None, under)


@pytest.mark.parametrize("at", ["a value", "its structure"])
def test_nothing_is_built_on_a_base_whose_bytes_are_damaged(at: str) -> None:
    """Noise that planes store as it is: a changed byte of it decodes without complaint."""
    data = np.random.default_rng(5).standard_normal(300_000).astype("<f4")
    stored = bytearray(encode_object(data.tobytes(), F32))
    digest = Digest.of(data.tobytes())
    trained = (data + np.float32(1e-6)).tobytes()

    def under() -> StoredBase:
        decoder = ObjectDecoder(Stored(bytes(stored), data.nbytes, digest, PACK.hex))
        return StoredBase(Reference(PACK, digest), decoder)

    sound = bytes(encode_object(trained, F32, None, under()))
    assert sound == bytes(
        encode_object(trained, F32, None, Base(Reference(PACK, digest), F32, memoryview(data.tobytes())))
    )
    stored[1000 if at == "a value" else 48] ^= 0xFF
    with pytest.raises(DamagedObject, match=digest.hex[:12]), ThreadPoolExecutor(2) as threads:
        encode_object(trained, F32, threads, under())


def test_without_a_way_to_fetch_there_are_no_bases() -> None:
    with pytest.raises(Exception, match="out of reach"):
        no_bases(Reference(PACK, Digest.of(b"")))
