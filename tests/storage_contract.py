"""The contract that every storage meets. A storage's tests derive from `StorageContract`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from stemmata.errors import KeyExists, KeyMissing
from stemmata.storage.base import Storage


class StorageContract:
    """Derive, give `storage` as a fixture, and the promises of `storage.base` are tested."""

    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError

    def test_what_was_put_is_read_back(self, storage: Storage) -> None:
        storage.put_new("log/1.json", b"abcdef")
        assert storage.get("log/1.json") == b"abcdef"
        assert storage.size("log/1.json") == 6

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_every_kind_of_buffer_is_taken(self, storage: Storage, kind: type) -> None:
        storage.put_new("a", kind(b"xyz"))
        new = storage.start_new("b")
        new.write(kind(b"12"))
        new.write(kind(b"3"))
        new.commit()
        assert (storage.get("a"), storage.get("b")) == (b"xyz", b"123")

    def test_a_view_of_wide_elements_is_written_whole(self, storage: Storage) -> None:
        storage.put_new("a", memoryview(bytes(range(16))).cast("I"))
        new = storage.start_new("b")
        new.write(memoryview(bytes(range(16))).cast("I"))
        new.commit()
        assert storage.get("a") == storage.get("b") == bytes(range(16))

    def test_the_storage_keeps_its_own_copy(self, storage: Storage) -> None:
        data = bytearray(b"before")
        storage.put_new("a", data)
        new = storage.start_new("b")
        new.write(data)
        data[:] = b"after!"
        new.commit()
        assert (storage.get("a"), storage.get("b")) == (b"before", b"before")

    def test_empty_values_are_values(self, storage: Storage) -> None:
        storage.put_new("a", b"")
        storage.start_new("b").commit()
        assert (storage.get("a"), storage.size("b")) == (b"", 0)
        assert [s.key for s in storage.list("")] == ["a", "b"]

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, None, b"0123456789"),
            (4, None, b"456789"),
            (4, 3, b"456"),
            (0, 0, b""),
            (8, 100, b"89"),
            (10, 5, b""),
            (50, 5, b""),
            (50, None, b""),
        ],
    )
    def test_ranges(self, storage: Storage, start: int, length: int | None, expected: bytes) -> None:
        storage.put_new("a", b"0123456789")
        assert storage.get("a", start, length) == expected

    @pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1)])
    def test_negative_ranges_are_refused(self, storage: Storage, start: int, length: int | None) -> None:
        storage.put_new("a", b"0123456789")
        with pytest.raises(ValueError, match="no bytes lie at"):
            storage.get("a", start, length)

    def test_absent_keys_are_named(self, storage: Storage) -> None:
        storage.put_new("packs/aa/one", b"x")
        for key in ("nothing", "packs/bb/two", "packs/aa/two", "packs/aa/one/below"):
            with pytest.raises(KeyMissing) as failure:
                storage.get(key)
            assert failure.value.data == {"key": key}
            with pytest.raises(KeyMissing):
                storage.size(key)

    def test_i2_no_key_is_overwritten(self, storage: Storage) -> None:
        storage.put_new("a", b"first")
        with pytest.raises(KeyExists) as failure:
            storage.put_new("a", b"second")
        assert failure.value.data == {"key": "a"}
        new = storage.start_new("a")
        new.write(b"third")
        with pytest.raises(KeyExists):
            new.commit()
        new.abort()
        assert storage.get("a") == b"first"

    def test_i2_a_writer_that_began_earlier_loses_as_well(self, storage: Storage) -> None:
        new = storage.start_new("a")
        new.write(b"slow")
        storage.put_new("a", b"quick")
        with pytest.raises(KeyExists):
            new.commit()
        assert storage.get("a") == b"quick"

    def test_nothing_is_visible_before_the_commit(self, storage: Storage) -> None:
        new = storage.start_new("a")
        new.write(b"x" * 100_000)
        with pytest.raises(KeyMissing):
            storage.get("a")
        assert list(storage.list("")) == []
        new.commit()
        assert storage.size("a") == 100_000

    def test_a_key_is_replaced_where_that_is_meant(self, storage: Storage) -> None:
        storage.put_new("log/1.json", b"damaged")
        storage.replace("log/1.json", b"as it was")
        storage.replace("log/2.json", bytearray(b"was missing"))
        assert [(s.key, s.size) for s in storage.list("")] == [("log/1.json", 9), ("log/2.json", 11)]
        assert storage.get("log/1.json") == b"as it was"
        assert storage.get("log/2.json") == b"was missing"
        with pytest.raises(ValueError, match="is no key"):
            storage.replace("tmp/x", b"")

    def test_an_aborted_write_leaves_no_key(self, storage: Storage) -> None:
        new = storage.start_new("a")
        new.write(b"x")
        new.abort()
        new.abort()
        assert list(storage.list("")) == []
        storage.put_new("a", b"y")
        assert storage.get("a") == b"y"

    def test_an_abort_after_the_commit_changes_nothing(self, storage: Storage) -> None:
        new = storage.start_new("a")
        new.write(b"x")
        new.commit()
        new.abort()
        assert storage.get("a") == b"x"

    def test_a_finished_write_takes_no_more(self, storage: Storage) -> None:
        new = storage.start_new("a")
        new.commit()
        with pytest.raises(ValueError, match="no longer being written"):
            new.write(b"x")
        with pytest.raises(ValueError, match="no longer being written"):
            new.commit()

    def test_two_writes_at_once_do_not_mix(self, storage: Storage) -> None:
        first, second = storage.start_new("a"), storage.start_new("b")
        for _ in range(3):
            first.write(b"1")
            second.write(b"2")
        second.commit()
        first.commit()
        assert (storage.get("a"), storage.get("b")) == (b"111", b"222")

    def test_listings_are_sorted_and_hold_to_their_prefix(self, storage: Storage) -> None:
        keys = ["packs/aa/1.pack", "packs-of/x", "packs/aa.x", "log/2.json", "log/10.json", "z", "packs/b"]
        for i, key in enumerate(keys):
            storage.put_new(key, bytes(i))
        assert [(s.key, s.size) for s in storage.list("")] == sorted((k, i) for i, k in enumerate(keys))
        assert [s.key for s in storage.list("packs/")] == ["packs/aa.x", "packs/aa/1.pack", "packs/b"]
        assert [s.key for s in storage.list("packs/aa/")] == ["packs/aa/1.pack"]
        assert [s.key for s in storage.list("", "packs/aa.x")] == ["packs/aa/1.pack", "packs/b", "z"]
        assert [s.key for s in storage.list("log/", "log/10.json")] == ["log/2.json"]
        assert [s.key for s in storage.list("log/", "log/1")] == ["log/10.json", "log/2.json"]
        assert list(storage.list("bundles/")) == []
        assert list(storage.list("z/")) == []

    def test_modification_times_are_of_one_clock(self, storage: Storage) -> None:
        storage.put_new("a", b"")
        storage.put_new("b", b"")
        first, second = storage.list("")
        assert 0 < first.modified <= second.modified

    def test_keys_may_be_deleted_while_they_are_listed(self, storage: Storage) -> None:
        for i in range(10):
            storage.put_new(f"log/{i}", b"x")
        seen = []
        for stored in storage.list("log/"):
            seen.append(stored.key)
            storage.delete(stored.key)
        assert seen == [f"log/{i}" for i in range(10)]
        assert list(storage.list("")) == []

    def test_i1_what_was_written_is_made_durable_again(self, storage: Storage) -> None:
        storage.put_new("packs/aa/x", b"1")
        storage.make_durable("packs/aa/x")
        storage.make_durable("packs/aa/x")
        assert storage.get("packs/aa/x") == b"1"
        with pytest.raises(KeyMissing):
            storage.make_durable("packs/aa/y")

    def test_deleting_is_idempotent(self, storage: Storage) -> None:
        storage.put_new("packs/aa/x", b"1")
        storage.delete("packs/aa/x")
        storage.delete("packs/aa/x")
        storage.delete("never/was/there")
        with pytest.raises(KeyMissing):
            storage.get("packs/aa/x")
        storage.put_new("packs/aa/x", b"2")
        assert storage.get("packs/aa/x") == b"2"

    @pytest.mark.parametrize(
        "key",
        [
            *("", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "a..b", ".hidden"),
            *("A", "a\\b", "a:b", "a b", "a\n", "a\0b", "é", "c/" * 400 + "c", "tmp/a", "tmp", "cache/x"),
        ],
    )
    def test_strange_keys_are_refused(self, storage: Storage, key: str) -> None:
        for use in (storage.get, storage.size, storage.delete, storage.start_new, storage.make_durable):
            with pytest.raises(ValueError, match="is no key"):
                use(key)
        with pytest.raises(ValueError, match="is no key"):
            storage.put_new(key, b"")

    @pytest.mark.parametrize("prefix", ["packs", "/", "../", "a/../", "tmp/", "cache/"])
    def test_strange_prefixes_are_refused(self, storage: Storage, prefix: str) -> None:
        with pytest.raises(ValueError, match="is no prefix"):
            list(storage.list(prefix))

    def test_a_writable_storage_says_so(self, storage: Storage) -> None:
        storage.require_writable()
        storage.require_writable()
        assert list(storage.list("")) == []

    def test_its_place_has_a_name(self, storage: Storage) -> None:
        assert storage.where

    @pytest.mark.parametrize("streamed", [False, True])
    def test_i6_of_32_writers_of_a_key_one_wins(self, storage: Storage, streamed: bool) -> None:
        gate = threading.Barrier(32)

        def race(key: str, i: int) -> int | None:
            data = f"writer {i}".encode() * 100
            new = storage.start_new(key) if streamed else None
            gate.wait()
            try:
                if new is None:
                    storage.put_new(key, data)
                else:
                    new.write(data)
                    new.commit()
            except KeyExists:
                return None
            return i

        with ThreadPoolExecutor(32) as pool:
            for turn in range(3):
                key = f"log/{turn}"
                answers = list(pool.map(race, [key] * 32, range(32)))
                winners = [a for a in answers if a is not None]
                assert len(winners) == 1
                assert storage.get(key) == f"writer {winners[0]}".encode() * 100
        assert len(list(storage.list(""))) == 3
