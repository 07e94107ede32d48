"""Bundles: their bytes, their writing and merging, and that a bad one is noticed."""

from __future__ import annotations

import struct

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from faults import ERRORS, Damage, Fault, FaultyStorage, contents, damaged, replace
from ledger import Ledger
from stemmata.errors import DamagedBundle, KeyMissing
from stemmata.log import blocks, bundles
from stemmata.log.bundles import BundleName, encode_bundle, entries_of, find_bundles, write_due_bundles
from stemmata.log.entries import log_key
from stemmata.storage.memory import MemoryStorage

NAME = BundleName(256, 1, 256, "0" * 16)
ENTRIES = [b"entry %d" % i for i in range(256)]


def stored(data: bytes, name: BundleName = NAME) -> MemoryStorage:
    storage = MemoryStorage()
    storage.put_new(name.key, data)
    return storage


def sealed(body: bytes) -> bytes:
    return body + blake3(body).digest()


def bundle(*blocks: tuple[int, bytes], count: int | None = None) -> bytes:
    """A bundle of these (raw length, frame) blocks, sound but for what is wrong with them."""
    body = struct.pack("<8sQQI", b"STMBNDL1", 1, 256, len(blocks) if count is None else count)
    return sealed(body + b"".join(struct.pack("<II", raw, len(frame)) + frame for raw, frame in blocks))


def packed(entries: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(e)) + e for e in entries)


def block(entries: list[bytes]) -> tuple[int, bytes]:
    raw = packed(entries)
    return len(raw), zstandard.compress(raw)


@pytest.fixture(scope="module")
def long_log() -> dict[str, bytes]:
    ledger = Ledger()
    for _ in range(4100):
        ledger.append()
    return contents(ledger.storage)


def with_log(kept: dict[str, bytes], n: int) -> MemoryStorage:
    storage = MemoryStorage()
    for key, data in kept.items():
        if not key.startswith("log/") or key <= log_key(n):
            storage.put_new(key, data)
    return storage


def test_a_bundle_is_as_the_format_says() -> None:
    data = encode_bundle(1, ENTRIES)
    magic, first, last, blocks = struct.unpack_from("<8sQQI", data)
    assert (magic, first, last, blocks) == (b"STMBNDL1", 1, 256, 1)
    raw_length, stored_length = struct.unpack_from("<II", data, 28)
    raw = zstandard.decompress(data[36 : 36 + stored_length])
    assert raw == packed(ENTRIES)
    assert raw_length == len(raw)
    assert data[36 + stored_length :] == blake3(data[: 36 + stored_length]).digest()


def test_entries_come_back_in_order() -> None:
    assert list(entries_of(stored(encode_bundle(1, ENTRIES)), NAME)) == ENTRIES


def test_large_entries_make_more_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "_WRITE_BYTES", 100)
    data = encode_bundle(1, ENTRIES)
    assert struct.unpack_from("<I", data, 24)[0] > 20
    monkeypatch.setattr(blocks, "_READ_BYTES", 7)
    assert list(entries_of(stored(data), NAME)) == ENTRIES


@pytest.mark.parametrize(
    "key",
    [
        "bundles/256/00000000000000000001-00000000000000000255-0000000000000000.bundle",
        "bundles/256/00000000000000000002-00000000000000000257-0000000000000000.bundle",
        "bundles/257/00000000000000000001-00000000000000000257-0000000000000000.bundle",
        "bundles/256/1-256-0000000000000000.bundle",
        "bundles/256/00000000000000000001-00000000000000000256-0.bundle",
    ],
)
def test_a_key_that_no_bundle_has(key: str) -> None:
    assert BundleName.parse(key) is None


def test_a_key_and_its_name() -> None:
    assert BundleName.parse(NAME.key) == NAME
    assert NAME.key == "bundles/256/00000000000000000001-00000000000000000256-0000000000000000.bundle"


GOOD = encode_bundle(1, ENTRIES)


@given(st.sampled_from([d for d in Damage if d is not Damage.GONE]), st.integers(0, len(GOOD)))
def test_i4_one_byte_of_damage_anywhere_is_found(how: Damage, at: int) -> None:
    bad = damaged(GOOD, how, at)
    assert bad is not None
    with pytest.raises(DamagedBundle):
        list(entries_of(stored(bad), NAME))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bundle(block(ENTRIES[:-1])), "255 entries"),
        (bundle(block([*ENTRIES, b"more"])), "more or larger"),
        (bundle(block(ENTRIES[:-1]), block(ENTRIES[:2])), "257 entries"),
        (bundle(), "header"),
        (bundle(*[block(ENTRIES)] * 257), "header"),
        (bundle(block(ENTRIES), count=2), "larger than any"),
        (bundle(block(ENTRIES))[:-40], "cut off"),
        (bundle((2**32 - 1, b"x")), "larger than any"),
        (bundle((10, b"x" * 2000)), "larger than any"),
        (bundle((10, b"no frame")), "decompressed"),
        (bundle((11, zstandard.compress(b"x" * 10))), "size"),
        (bundle((10, zstandard.compress(b"x" * 10) + b"more")), "decompressed"),
        (bundle((6, zstandard.compress(b"\x05\x00\x00\x00ab"))), "more or larger"),
        (bundle((5, zstandard.compress(b"\x00\x00\x00\x00a"))), "an entry is cut off"),
        (bundle((4, zstandard.compress(b"\xff\xff\xff\xff"))), "more or larger"),
        (sealed(struct.pack("<8sQQI", b"STMBNDL2", 1, 256, 1)), "header"),
        (sealed(struct.pack("<8sQQI", b"STMBNDL1", 257, 512, 1)), "header"),
        (bundle(block(ENTRIES))[:-32] + bytes(32), "seal"),
        (bundle(block(ENTRIES)) + b"x", "seal"),
    ],
)
def test_hostile_bundles_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DamagedBundle, match=reason):
        list(entries_of(stored(data), NAME))


def test_a_frame_that_hides_its_size_is_refused() -> None:
    raw = packed(ENTRIES)
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
    with pytest.raises(DamagedBundle, match="size"):
        list(entries_of(stored(bundle((len(raw), frame))), NAME))


def test_a_missing_bundle_is_missing() -> None:
    with pytest.raises(KeyMissing):
        list(entries_of(MemoryStorage(), NAME))


@pytest.mark.parametrize(("n", "there"), [(0, 0), (1, 0), (255, 0), (256, 1), (257, 0), (512, 1)])
def test_a_bundle_is_due_every_256_entries(long_log: dict[str, bytes], n: int, there: int) -> None:
    storage = with_log(long_log, n)
    write_due_bundles(storage, n)
    names = find_bundles(storage)
    assert [(b.first, b.last) for b in names] == [(n - 255, n)] * there
    for name in names:
        assert list(entries_of(storage, name)) == [long_log[log_key(i)] for i in range(n - 255, n + 1)]


def test_i2_a_bundle_that_is_there_is_not_written_again(long_log: dict[str, bytes]) -> None:
    storage = with_log(long_log, 256)
    write_due_bundles(storage, 256)
    write_due_bundles(storage, 256)
    assert len(find_bundles(storage)) == 1


def test_bundles_are_merged_when_complete(long_log: dict[str, bytes]) -> None:
    storage = with_log(long_log, 4096)
    for n in range(256, 4097, 256):
        write_due_bundles(storage, n)
    merged = [b for b in find_bundles(storage) if b.level == 4096]
    assert [(b.first, b.last) for b in merged] == [(1, 4096)]
    assert list(entries_of(storage, merged[0])) == [long_log[log_key(i)] for i in range(1, 4097)]


@pytest.mark.parametrize("how", [Damage.GONE, Damage.FLIP])
def test_bundles_are_not_merged_when_one_is_bad(long_log: dict[str, bytes], how: Damage) -> None:
    storage = with_log(long_log, 4096)
    for n in range(256, 4096, 256):
        write_due_bundles(storage, n)
    key = find_bundles(storage)[7].key
    replace(storage, key, damaged(storage.get(key), how, 100))
    write_due_bundles(storage, 4096)
    assert [b for b in find_bundles(storage) if b.level == 4096] == []


@pytest.mark.parametrize("fault", ERRORS)
def test_i8_failing_to_write_one_harms_nothing(long_log: dict[str, bytes], fault: Fault) -> None:
    inner = with_log(long_log, 256)
    write_due_bundles(FaultyStorage(inner, 0, fault), 256)
    assert {k: v for k, v in contents(inner).items() if k.startswith("log/")} == {
        k: v for k, v in long_log.items() if k.startswith("log/") and k <= log_key(256)
    }


def test_i8_a_log_with_a_missing_entry_gets_no_bundle(long_log: dict[str, bytes]) -> None:
    storage = with_log(long_log, 256)
    replace(storage, log_key(100), None)
    write_due_bundles(storage, 256)
    assert find_bundles(storage) == []
