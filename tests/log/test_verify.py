"""Verifying the log: whatever is off in `log/` or `bundles/` is named."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults import Damage, FaultyStorage, contents, damage, memory_of, replace
from ledger import Ledger, add_pack
from stemmata.log.bundles import BundleName, encode_bundle, find_bundles, write_due_bundles
from stemmata.log.entries import log_key, seal
from stemmata.log.identity import read_identity
from stemmata.log.verify import Problem, verify_log
from stemmata.storage.memory import MemoryStorage


def _kept() -> dict[str, bytes]:
    ledger = Ledger()
    for n in range(1, 301):
        ledger.append(add_pack(n))
        write_due_bundles(ledger.storage, n)
    return contents(ledger.storage)


KEPT = _kept()
DAMAGEABLE = sorted(k for k in KEPT if k.startswith(("log/", "bundles/")))


def problems(storage: MemoryStorage) -> list[Problem]:
    return list(verify_log(storage, read_identity(storage)))


def test_a_sound_log_has_no_problems() -> None:
    assert problems(memory_of(KEPT)) == []


@given(
    st.sampled_from([log_key(1), log_key(256), log_key(257), log_key(299), log_key(300), DAMAGEABLE[0]]),
    st.sampled_from([d for d in Damage if d is not Damage.GONE]),
    st.integers(0, 10_000),
)
def test_i4_damage_of_any_file_is_found(key: str, how: Damage, at: int) -> None:
    storage = memory_of(KEPT)
    damage(storage, key, how, at)
    assert [p.where for p in problems(storage)] == [key]


@pytest.mark.parametrize("n", [1, 100, 256, 299])
def test_a_missing_entry_is_found(n: int) -> None:
    storage = memory_of(KEPT)
    replace(storage, log_key(n), None)
    assert [p.where for p in problems(storage)] == [log_key(n)]


@pytest.mark.parametrize(
    "key", [log_key(1), log_key(100), log_key(256), log_key(300), DAMAGEABLE[0]], ids=range(5)
)
def test_what_the_disk_does_not_hand_out_is_named_and_the_rest_is_verified(key: str) -> None:
    storage = FaultyStorage(memory_of(KEPT))
    storage.unread = {key}
    damage(storage, log_key(200), Damage.FLIP, 20)
    found = {p.where: p.reason for p in verify_log(storage, read_identity(storage))}
    assert found.keys() == {key, log_key(200)}
    assert found[key] == "it cannot be read: Input/output error"


def test_missing_entries_at_the_end_are_found_where_a_bundle_holds_them() -> None:
    storage = memory_of({k: v for k, v in KEPT.items() if not k.startswith("log/") or k < log_key(200)})
    assert [p.where for p in problems(storage)] == [log_key(n) for n in range(200, 257)]


def test_an_older_release_says_that_the_log_is_newer() -> None:
    ledger = Ledger()
    ledger.append(add_pack(1))
    ledger.storage.put_new(log_key(2), seal(msgspec.json.encode(ledger.body(format=9))))
    found = list(verify_log(ledger.storage, ledger.identity))
    assert [p.where for p in found] == [log_key(2)]
    assert "format 9" in found[0].reason


@pytest.mark.parametrize("key", ["log/1.json", "log/old/x", "bundles/256/x.bundle"])
def test_what_does_not_belong_there_is_named(key: str) -> None:
    storage = memory_of(KEPT)
    storage.put_new(key, b"x")
    assert [p.where for p in problems(storage)] == [key]


def test_a_sound_bundle_of_another_log_is_named() -> None:
    storage = memory_of(KEPT)
    ledger = Ledger()
    entries = []
    for n in range(1, 257):
        ledger.append(add_pack(n))
        entries.append(ledger.storage.get(log_key(n)))
    name = BundleName.fresh(256, 1)
    storage.put_new(name.key, encode_bundle(1, entries))
    assert [p.where for p in problems(storage)] == [name.key]
    assert len(find_bundles(storage)) == 2
