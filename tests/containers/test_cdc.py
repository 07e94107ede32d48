"""Content-defined chunks: the cuts follow the content, on every machine, however much of it there is."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from cuts import Memory, check_tiles, cut
from stemmata.containers import cdc
from stemmata.containers.cdc import MAX_CHUNK, MIN_CHUNK, MOST, ends_in, plan_content

MIB = 1 << 20


def stream(seed: bytes, length: int) -> bytes:
    return blake3(seed).digest(length=length)


def chunks(data: bytes) -> list[bytes]:
    found = plan_content(Memory(data), len(data))
    check_tiles(found, len(data))
    return [data[p.offset : p.offset + p.length] for s in found.segments for p in s.pieces]


def new_bytes(before: bytes, after: bytes) -> int:
    known = set(chunks(before))
    return sum(len(chunk) for chunk in chunks(after) if chunk not in known)


def by_hand(data: bytes) -> list[int]:
    """The rule of FORMAT.md, position by position."""
    mask = (1 << 64) - 1
    digest = blake3(b"stemmata chunks 1\n").digest()
    keys = [int.from_bytes(digest[8 * i : 8 * i + 8], "little") | 1 for i in range(4)]
    found = []
    for end in range(32, len(data) + 1):
        words = [int.from_bytes(data[at : at + 8], "little") for at in range(end - 32, end, 8)]
        first = words[3] * keys[3] & mask
        total = sum(w * k for w, k in zip(words, keys, strict=True)) & mask
        total = (total ^ total >> 32) * keys[0] & mask
        if (
            first >> (64 - cdc.FIRST_BITS) == (1 << cdc.FIRST_BITS) - 1
            and total >> (64 - cdc.SECOND_BITS) == 0
        ):
            found.append(end)
    return found


def test_the_cuts_of_a_known_stream_never_change() -> None:
    data = stream(b"cuts", 2 * MIB)
    first = [113474, 270625, 77638, 80862, 183637, 76400, 93081]
    assert [len(chunk) for chunk in chunks(data)][:7] == first


@pytest.mark.parametrize("length", [0, 7, 31, 32, 33, 39, 40, 41, 5000])
def test_every_position_is_asked(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setattr(cdc, "FIRST_BITS", 2)
    monkeypatch.setattr(cdc, "SECOND_BITS", 1)
    data = stream(b"all", length)
    assert ends_in(data) == by_hand(data)


@given(st.integers(0, 3000), st.integers(40, 700))
def test_how_the_file_is_read_does_not_matter(length: int, block: int) -> None:
    data = stream(b"blocks", length)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("FIRST_BITS", 2), ("SECOND_BITS", 1), ("_BLOCK", block)):
            patch.setattr(cdc, name, value)
        assert list(cdc._ends(Memory(data), length)) == [*by_hand(data), length]


@given(st.integers(40, 3000))
def test_an_end_at_the_end_of_the_file_makes_no_empty_chunk(length: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("FIRST_BITS", 2), ("SECOND_BITS", 1), ("MIN_CHUNK", 8)):
            patch.setattr(cdc, name, value)
        data = stream(b"ends", 3000)[:length]
        data = data[: by_hand(data)[-1]] if by_hand(data) else data
        (segment,) = cdc.plan_content(Memory(data), len(data)).segments
        assert min(piece.length for piece in segment.pieces) > 0
        assert sum(piece.length for piece in segment.pieces) == len(data)


def test_chunks_are_neither_small_nor_large() -> None:
    lengths = [len(chunk) for chunk in chunks(stream(b"sizes", 8 * MIB))]
    assert all(MIN_CHUNK <= n <= MAX_CHUNK for n in lengths[:-1])
    assert 0 < lengths[-1] <= MAX_CHUNK
    assert 8 * MIB / len(lengths) < MAX_CHUNK / 2


@pytest.mark.parametrize("size", [0, 1, MIN_CHUNK])
def test_a_small_file_is_whole_and_not_read(size: int) -> None:
    reader = Memory(stream(b"small", size))
    found = plan_content(reader, size)
    check_tiles(found, size)
    assert (reader.reads, sum(len(s.pieces) for s in found.segments)) == ([], min(size, 1))


def test_an_insertion_costs_little() -> None:
    data = stream(b"edit", 6 * MIB)
    chance = random.Random(3)
    for at in [0, len(data), *(chance.randrange(len(data)) for _ in range(6))]:
        assert new_bytes(data, data[:at] + b"a few bytes more" + data[at:]) <= 2 * MAX_CHUNK
        assert new_bytes(data, data[:at] + data[at + 5 :]) <= 2 * MAX_CHUNK
    total = sum(new_bytes(data, data[:at] + b"+" + data[at:]) for at in range(0, len(data), MIB))
    assert total / 6 < 600_000


def test_an_insertion_into_lines_of_text_costs_little() -> None:
    words = [f'    "{stream(str(i).encode(), 4).hex()}": {i},\n' for i in range(120_000)]
    before = "".join(words).encode()
    after = "".join([*words[:60_000], '    "<new>": 1,\n', *words[60_000:]]).encode()
    assert new_bytes(before, after) <= 2 * MAX_CHUNK < len(before) / 1.2


def test_content_is_found_again_behind_other_content() -> None:
    shared = stream(b"shared", 4 * MIB)
    assert new_bytes(stream(b"a", 999_999) + shared, stream(b"b", 77_777) + shared) < MIB


@pytest.mark.parametrize("byte", [0, 0x20, 0x5A, 0xFF])
def test_a_run_of_one_byte_has_no_ends(byte: int) -> None:
    assert {len(chunk) for chunk in chunks(bytes([byte]) * (3 * MIB))} == {MAX_CHUNK}
    assert not any(ends_in(bytes([b]) * 64) for b in range(256))


def test_memory_does_not_grow_with_the_file() -> None:
    reader = Memory(b"")

    class Hole(Memory):
        def read_at(self, offset: int, length: int) -> bytes:
            reader.reads.append((offset, length))
            return bytes(length)

    size = 64 * MIB
    cut(b"")  # numpy is imported before memory is measured
    ends_in(bytes(64))
    tracemalloc.start()
    try:
        found = plan_content(Hole(b""), size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(len(s.pieces) for s in found.segments) == 64
    assert peak < 4 * MIB
    assert sum(length for _, length in reader.reads) == size


def test_a_file_of_absurd_size_is_not_read_at_all() -> None:
    reader = Memory(b"")
    found = plan_content(reader, MOST + 1)
    check_tiles(found, MOST + 1)
    assert reader.reads == []


def test_a_file_that_shrinks_is_cut_all_the_same() -> None:
    found = plan_content(Memory(stream(b"short", 100_000)), 3 * MIB)
    check_tiles(found, 3 * MIB)
