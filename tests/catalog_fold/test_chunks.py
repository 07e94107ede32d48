"""Records that lie together, compressed: each is had again, and what nobody wrote is refused."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stemmata.catalog import chunks


@given(st.lists(st.binary(max_size=40), max_size=60), st.integers(1, 1000))
def test_each_record_is_had_again(records: list[bytes], first: int) -> None:
    rows = list(chunks.together(list(enumerate(records, first))))
    found = {
        seq: chunks.record_in(begin, data, seq)
        for (begin, data), end in zip(rows, [*(r[0] for r in rows[1:]), first + len(records)], strict=False)
        for seq in range(begin, end)
    }
    assert found == dict(enumerate(records, first))


def test_a_large_record_shares_its_chunk_with_none_after_it() -> None:
    records = [(1, b"a" * 100), (2, b"b" * 70_000), (3, b"c")]
    assert [first for first, _ in chunks.together(records)] == [1, 3]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        zstandard.ZstdCompressor().compress(b"\x05\x00\x00\x00abcde")[:-2],
        zstandard.ZstdCompressor(write_content_size=False).compress(b"\x05\x00\x00\x00abcde"),
        zstandard.ZstdCompressor().compress(bytes(64 << 20)),
    ],
)
def test_i8_what_is_no_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="chunk"):
        chunks.record_in(1, data, 1)


@pytest.mark.parametrize("seq", [0, 3])
def test_a_version_beyond_a_chunk_has_no_record(seq: int) -> None:
    ((first, data),) = chunks.together([(1, b"a"), (2, b"b")])
    with pytest.raises(ValueError, match="without"):
        chunks.record_in(first, data, seq)
