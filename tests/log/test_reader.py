"""Reading the log: the chain, its end, and when a bundle may stand in for it."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from faults import Damage, FaultyStorage, contents, damage, memory_of, replace
from ledger import Ledger, add_pack
from stemmata.errors import DamagedLog, NewerFormat, StorageFailed
from stemmata.ids import Digest
from stemmata.log.bundles import BundleName, encode_bundle, find_bundles, write_due_bundles
from stemmata.log.entries import Entry, Position, Void, encode_entry, log_key, seal
from stemmata.log.identity import read_identity
from stemmata.log.reader import confirm, number_of, read_log
from stemmata.storage.memory import MemoryStorage

AT = "2026-03-01T00:00:00.000000Z"


class Counting(MemoryStorage):
    """Counts what is read, by the first part of the key."""

    def __init__(self) -> None:
        super().__init__()
        self.read: Counter[str] = Counter()

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.read[key.split("/")[0]] += 1
        return super().get(key, start, length)


@pytest.fixture(scope="module")
def long_log() -> dict[str, bytes]:
    """600 entries with two bundles."""
    ledger = Ledger()
    for n in range(1, 601):
        ledger.append(add_pack(n))
        write_due_bundles(ledger.storage, n)
    return contents(ledger.storage)


def counting(kept: dict[str, bytes]) -> tuple[Counting, Position]:
    storage = Counting()
    for key, data in kept.items():
        storage.put_new(key, data)
    return storage, read_identity(storage).genesis


def numbers(storage: MemoryStorage, after: Position) -> list[int]:
    return [position.n for position, _, _ in read_log(storage, after)]


def test_an_empty_log_has_no_entries() -> None:
    ledger = Ledger()
    assert list(read_log(ledger.storage, ledger.here)) == []


def test_entries_come_in_order_with_their_bytes() -> None:
    ledger = Ledger()
    genesis = ledger.here
    ends = [ledger.append(add_pack(1)), ledger.append_body(by=None), ledger.append(add_pack(2))]
    steps = list(read_log(ledger.storage, genesis))
    assert [position for position, _, _ in steps] == ends
    assert [type(found) for _, found, _ in steps] == [Entry, Void, Entry]
    assert [data for _, _, data in steps] == [ledger.storage.get(log_key(n)) for n in (1, 2, 3)]
    assert numbers(ledger.storage, ends[0]) == [2, 3]
    assert numbers(ledger.storage, ends[2]) == []


@pytest.mark.parametrize("unread", ["bundle", "last of a bundle"])
def test_a_bundle_that_the_disk_does_not_hand_out_is_done_without(
    long_log: dict[str, bytes], unread: str
) -> None:
    storage = FaultyStorage(memory_of(long_log))
    genesis = read_identity(storage).genesis
    if unread == "bundle":
        storage.unread = {key for key in long_log if key.startswith("bundles/")}
        assert [position.n for position, _, _ in read_log(storage, genesis)] == list(range(1, 601))
        return
    storage.unread = {log_key(512)}
    steps = read_log(storage, genesis)
    assert [next(steps)[0].n for _ in range(511)] == list(range(1, 512))
    with pytest.raises(StorageFailed):
        next(steps)


@pytest.mark.parametrize("how", [d for d in Damage if d is not Damage.GONE])
def test_i4_reading_stops_at_a_damaged_entry(how: Damage) -> None:
    ledger = Ledger()
    genesis = ledger.here
    for n in (1, 2, 3):
        ledger.append(add_pack(n))
    damage(ledger.storage, log_key(2), how, 40)
    steps = read_log(ledger.storage, genesis)
    assert next(steps)[0].n == 1
    with pytest.raises(DamagedLog, match="entry 2"):
        next(steps)


def test_a_hole_is_no_end() -> None:
    ledger = Ledger()
    genesis = ledger.here
    for n in (1, 2, 3):
        ledger.append(add_pack(n))
    replace(ledger.storage, log_key(2), None)
    with pytest.raises(DamagedLog, match="missing"):
        numbers(ledger.storage, genesis)


def test_a_log_shorter_than_its_bundles_is_damaged(long_log: dict[str, bytes]) -> None:
    kept = {k: v for k, v in long_log.items() if not k.startswith("log/") or k <= log_key(500)}
    storage, genesis = counting(kept)
    with pytest.raises(DamagedLog, match="a bundle goes up to 512"):
        numbers(storage, genesis)


def test_a_fork_is_damage() -> None:
    ledger = Ledger()
    genesis = ledger.here
    first = ledger.append(add_pack(1))
    ledger.append(add_pack(2))
    replace(ledger.storage, log_key(1), encode_entry(genesis, [], txn="a" * 32, at=first.effective, by=""))
    with pytest.raises(DamagedLog, match="does not follow"):
        numbers(ledger.storage, genesis)


def test_an_entry_under_another_number_is_damage() -> None:
    ledger = Ledger()
    genesis = ledger.here
    ledger.append(add_pack(1))
    ledger.storage.put_new(log_key(2), ledger.storage.get(log_key(1)))
    with pytest.raises(DamagedLog, match="calls itself"):
        numbers(ledger.storage, genesis)


def test_i9_nothing_past_a_newer_entry_is_read() -> None:
    ledger = Ledger()
    genesis = ledger.here
    ledger.append(add_pack(1))
    ledger.storage.put_new(log_key(2), seal(msgspec.json.encode(ledger.body(format=2))))
    steps = read_log(ledger.storage, genesis)
    assert next(steps)[0].n == 1
    with pytest.raises(NewerFormat):
        next(steps)


@pytest.mark.parametrize("key", ["log/1.json", f"log/{0:019d}x.json", f"log/{1:020d}.txt", "x"])
def test_a_key_that_is_no_entry(key: str) -> None:
    assert number_of(key) is None


def test_a_cold_reader_takes_bundles(long_log: dict[str, bytes]) -> None:
    storage, genesis = counting(long_log)
    storage.read.clear()
    steps = list(read_log(storage, genesis))
    assert [data for _, _, data in steps] == [long_log[log_key(n)] for n in range(1, 601)]
    assert storage.read["log"] < 100
    assert storage.read["bundles"] > 0


def test_a_reader_in_the_middle_of_a_bundle_takes_it(long_log: dict[str, bytes]) -> None:
    storage, genesis = counting(long_log)
    ends = [position for position, _, _ in read_log(storage, genesis)]
    storage.read.clear()
    assert numbers(storage, ends[99]) == list(range(101, 601))
    assert storage.read["log"] < 100


def test_a_reader_close_to_the_end_takes_none(long_log: dict[str, bytes]) -> None:
    storage, genesis = counting(long_log)
    ends = [position for position, _, _ in read_log(storage, genesis)]
    storage.read.clear()
    assert numbers(storage, ends[399]) == list(range(401, 601))
    assert storage.read["bundles"] == 0


@pytest.mark.parametrize("how", list(Damage))
def test_i8_a_damaged_bundle_changes_nothing(long_log: dict[str, bytes], how: Damage) -> None:
    storage, genesis = counting(long_log)
    damage(storage, find_bundles(storage)[0].key, how, 100)
    steps = list(read_log(storage, genesis))
    assert [data for _, _, data in steps] == [long_log[log_key(n)] for n in range(1, 601)]


def forged(kept: dict[str, bytes], changed: int, *, whole_chain: bool) -> MemoryStorage:
    """A repository whose first bundle, sound in itself, holds another entry `changed`."""
    storage = memory_of({k: v for k, v in kept.items() if not k.startswith("bundles/")})
    here = read_identity(storage).genesis
    entries = []
    for n in range(1, 257):
        data = kept[log_key(n)]
        if n == changed or (whole_chain and n > changed):
            data = encode_entry(here, [add_pack(n + 5000)], txn="a" * 32, at=AT, by="")
        entries.append(data)
        here = Position(n, Digest.of(data), "")
    storage.put_new(BundleName.fresh(256, 1).key, encode_bundle(1, entries))
    return storage


@pytest.mark.parametrize("changed", [1, 100, 256])
@pytest.mark.parametrize("whole_chain", [True, False])
def test_i8_a_bundle_that_tells_another_story_is_not_believed(
    long_log: dict[str, bytes], changed: int, whole_chain: bool
) -> None:
    storage = forged(long_log, changed, whole_chain=whole_chain)
    genesis = read_identity(storage).genesis
    assert confirm(storage, find_bundles(storage)[0], genesis) is None
    steps = list(read_log(storage, genesis))
    assert [data for _, _, data in steps] == [long_log[log_key(n)] for n in range(1, 601)]


def test_a_bundle_of_another_repository_is_not_believed(long_log: dict[str, bytes]) -> None:
    storage = memory_of(long_log)
    name = find_bundles(storage)[0]
    assert confirm(storage, name, read_identity(storage).genesis) is not None
    assert confirm(storage, name, Ledger().here) is None


def test_a_bundle_whose_last_entry_the_log_lacks_is_not_believed(long_log: dict[str, bytes]) -> None:
    storage = memory_of(long_log)
    replace(storage, log_key(256), None)
    assert confirm(storage, find_bundles(storage)[0], read_identity(storage).genesis) is None


def test_i6_what_is_written_while_a_cold_reader_looks_for_holes_is_no_hole() -> None:
    ledger = Ledger()
    genesis = ledger.here
    ledger.append(add_pack(1))

    class Busy(Counting):
        def list(self, prefix: str, after: str = ""):  # type: ignore[no-untyped-def]
            # Another writer commits between the reader's end and its look for holes.
            if ledger.here.n == 1:
                for n in (2, 3):
                    ledger.append(add_pack(n))
                    self.put_new(log_key(n), ledger.storage.get(log_key(n)))
            return super().list(prefix, after)

    busy = Busy()
    for key, data in contents(ledger.storage).items():
        busy.put_new(key, data)
    assert numbers(busy, genesis) == [1, 2, 3]
