"""What is damaged in the log is put right with proven bytes, or said to be lost: nothing in between."""

from __future__ import annotations

from contextlib import closing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults import CRASHES, Damage, FaultyStorage, contents, damage, every_fault, memory_of, replace, run_into
from ledger import Ledger, add_pack, add_version, alias, record, version_of
from stemmata import recovering
from stemmata.catalog.catalog import Catalog
from stemmata.errors import DamagedLog, HostileData, NewerFormat, RepositoryNotFound
from stemmata.log import bundles
from stemmata.log.bundles import find_bundles, write_due_bundles
from stemmata.log.entries import log_key, seal
from stemmata.log.identity import read_identity
from stemmata.log.reader import read_log
from stemmata.log.verify import verify_log
from stemmata.recovering import RecoveryReport, bundling, recover
from stemmata.storage.base import Storage
from stemmata.storage.memory import MemoryStorage
from stemmata.transaction import commit

BUNDLED = 256
LAST = 260


def _kept() -> dict[str, bytes]:
    ledger = Ledger()
    ledger.append(add_pack(1), add_version(1))
    for n in range(2, LAST + 1):
        ledger.append(alias(f"a{n}", version_of(record(1))))
        write_due_bundles(ledger.storage, n)
    return contents(ledger.storage)


KEPT = _kept()
BUNDLE = next(key for key in KEPT if key.startswith("bundles/"))
ASIDE = "damaged/"


def stored(storage: Storage) -> dict[str, bytes]:
    """Everything but what was put aside; a bundle by what it holds: its name is random."""
    found = {k: v for k, v in contents(storage).items() if not k.startswith(ASIDE)}
    return {k.rpartition("-")[0] if k.startswith("bundles/") else k: v for k, v in found.items()}


WHOLE = stored(memory_of(KEPT))


def copy() -> MemoryStorage:
    return memory_of(KEPT)


def assert_whole(storage: Storage, report: RecoveryReport) -> None:
    assert stored(storage) == WHOLE
    assert report.complete
    assert report.whole == report.entries == LAST
    assert list(verify_log(storage, read_identity(storage))) == []


def test_a_sound_log_is_left_alone() -> None:
    storage = FaultyStorage(copy())
    report = recover(storage, sources=[copy()])
    assert report == RecoveryReport(whole=LAST, entries=LAST)
    assert storage.log == []


HURT = [log_key(n) for n in (1, 7, 255, 256)]


@pytest.mark.parametrize("how", list(Damage))
@pytest.mark.parametrize("key", HURT)
def test_an_entry_comes_from_its_bundle(key: str, how: Damage) -> None:
    storage = copy()
    damage(storage, key, how, 40)
    hurt = contents(storage).get(key)
    report = recover(storage)
    assert_whole(storage, report)
    assert [(r.key, r.source) for r in report.recovered] == [(key, "a bundle")]
    aside = [data for k, data in contents(storage).items() if k.startswith(ASIDE)]
    assert aside == ([hurt] if hurt else [])


@pytest.mark.parametrize("n", [257, 259])
@pytest.mark.parametrize("how", [Damage.CUT, Damage.EMPTY, Damage.GONE])
def test_an_entry_behind_the_bundles_comes_from_another_copy(n: int, how: Damage) -> None:
    storage = copy()
    damage(storage, log_key(n), how, 100)
    report = recover(storage)
    assert [(lost.first, lost.last) for lost in report.lost] == [(n, n)]
    assert report.whole == n - 1
    assert not any(key.startswith(ASIDE) for key in contents(storage))
    report = recover(storage, sources=[MemoryStorage(), copy()])
    assert [r.key for r in report.recovered] == [log_key(n)]
    assert_whole(storage, report)


@settings(max_examples=12)
@given(st.sampled_from([257, LAST, 0]), st.integers(0, 10_000), st.sampled_from([Damage.FLIP, Damage.ZERO]))
def test_one_wrong_byte_is_put_right_without_any_copy(n: int, at: int, how: Damage) -> None:
    """The seal tells the body; where it was hit itself, the entry behind does, which the last one has not."""
    storage = copy()
    key = log_key(n) if n else "stemmata.json"
    at %= len(KEPT[key]) - (66 if n == LAST else 0)
    damage(storage, key, how, at)
    report = recover(storage)
    assert [r.source for r in report.recovered] == ["what is left of it"]
    assert_whole(storage, report)


@pytest.mark.parametrize("n", [257, 0])
@pytest.mark.parametrize("at", [-1, -30, -66])
@pytest.mark.parametrize("more", [b"", b"\0" * 4000])
def test_a_seal_that_is_cut_or_followed_by_more_is_put_right(n: int, at: int, more: bytes) -> None:
    storage = copy()
    key = log_key(n) if n else "stemmata.json"
    replace(storage, key, KEPT[key][:at] + more)
    assert_whole(storage, recover(storage))


def test_the_last_entry_is_held_against_its_own_seal() -> None:
    """Nothing follows it; but what is left of it ends with the hash of what it was."""
    storage = copy()
    hurt = b"#" * 100 + KEPT[log_key(LAST)][100:]
    replace(storage, log_key(LAST), hurt)
    liar = Ledger(memory_of({k: v for k, v in KEPT.items() if k != log_key(LAST)}))
    lie = seal(KEPT[log_key(LAST)][:-66].replace(b"a260", b"a999"))
    replace(liar.storage, log_key(LAST), lie)
    report = recover(storage, sources=[liar.storage])
    assert [lost.first for lost in report.lost] == [LAST]
    assert storage.get(log_key(LAST)) == hurt
    assert_whole(storage, recover(storage, sources=[liar.storage, copy()]))


def test_a_last_entry_that_left_nothing_is_lost_whatever_a_source_says() -> None:
    storage = copy()
    replace(storage, log_key(LAST), b"")
    report = recover(storage, sources=[copy()])
    assert [lost.first for lost in report.lost] == [LAST]
    assert storage.get(log_key(LAST)) == b""


def test_a_source_that_lies_is_refused() -> None:
    storage, liar = copy(), copy()
    replace(storage, log_key(258), None)
    sound = KEPT[log_key(258)][:-66]
    replace(liar, log_key(258), seal(sound.replace(b"a258", b"b258")))
    before = contents(storage)
    report = recover(storage, sources=[liar])
    assert [lost.first for lost in report.lost] == [258]
    assert contents(storage) == before


def test_another_repository_is_no_source() -> None:
    storage, other = copy(), Ledger()
    for n in range(1, LAST + 1):
        other.append(add_pack(n))
    replace(storage, log_key(258), None)
    replace(storage, "stemmata.json", None)
    before = contents(storage)
    report = recover(storage, sources=[other.storage])
    assert [lost.first for lost in report.lost] == [258]
    assert report.identity == "it is missing"
    assert contents(storage) == before


@pytest.mark.parametrize("how", list(Damage))
def test_a_damaged_bundle_is_made_anew(how: Damage) -> None:
    storage = copy()
    damage(storage, BUNDLE, how, 77)
    report = recover(storage)
    assert [r.source for r in report.recovered] == ["the entries of the log"]
    assert_whole(storage, report)
    assert len(find_bundles(storage)) == 1


def test_a_bundle_that_the_disk_does_not_hand_out_is_made_anew_and_hinders_nothing() -> None:
    storage = FaultyStorage(copy())
    storage.unread = {BUNDLE}
    replace(storage, log_key(258), None)
    report = recover(storage, sources=[copy()])
    assert {r.key: r.was for r in report.recovered} == {
        log_key(258): "it is missing",
        BUNDLE: "it cannot be read: Input/output error",
    }
    assert_whole(storage, report)


def test_a_bundle_of_another_log_is_replaced() -> None:
    storage, other = copy(), Ledger()
    for n in range(1, BUNDLED + 1):
        other.append(add_pack(n))
        write_due_bundles(other.storage, n)
    (strange,) = (k for k in contents(other.storage) if k.startswith("bundles/"))
    replace(storage, BUNDLE, None)
    storage.put_new(strange, other.storage.get(strange))
    assert_whole(storage, recover(storage))


@pytest.fixture
def small_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles of 4 entries and of 4 bundles: the real ones ask for 4096 entries."""
    for module in (bundles, bundling):
        monkeypatch.setattr(module, "LEVELS", (4, 16))
    pattern = bundles._KEY.pattern.replace("256|4096", "4|16")
    monkeypatch.setattr(bundles, "_KEY", bundles.re.compile(pattern))


@pytest.mark.usefixtures("small_bundles")
def test_bundles_of_every_level_are_made_anew() -> None:
    ledger = Ledger()
    for n in range(1, 33):
        ledger.append(add_pack(n))
    report = recover(ledger.storage)
    assert [b.level for b in find_bundles(ledger.storage)] == [4] * 8 + [16] * 2
    assert len(report.recovered) == 10
    assert recover(ledger.storage).recovered == []
    assert list(verify_log(ledger.storage, ledger.identity)) == []


def test_a_damaged_bundle_stays_while_entries_are_lost() -> None:
    storage = copy()
    damage(storage, BUNDLE, Damage.CUT, 300)
    replace(storage, log_key(7), None)
    assert [lost.first for lost in recover(storage).lost] == [7]
    assert BUNDLE in contents(storage)
    report = recover(storage, sources=[copy()])
    assert_whole(storage, report)
    assert BUNDLE not in contents(storage)


def test_the_whole_log_comes_back_from_bundles_and_a_copy() -> None:
    storage = memory_of({k: v for k, v in KEPT.items() if k.startswith("bundles/")})
    report = recover(storage, sources=[copy()])
    # The copy goes on behind the bundle.
    assert [r.source for r in report.recovered] == ["memory", *["a bundle"] * BUNDLED, *["memory"] * 4]
    assert_whole(storage, report)


def test_of_the_whole_log_a_bundle_alone_brings_what_it_holds() -> None:
    storage, other = memory_of({k: v for k, v in KEPT.items() if k.startswith("bundles/")}), Ledger()
    storage.put_new("stemmata.json", KEPT["stemmata.json"])
    report = recover(storage, sources=[other.storage])
    # Of what came behind the bundle nothing is left to prove it.
    assert report.whole == report.entries == BUNDLED
    assert [r.source for r in report.recovered] == ["a bundle"] * BUNDLED
    assert list(verify_log(storage, read_identity(storage))) == []


def test_a_single_stranger_is_replaced_where_a_bundle_and_the_next_entry_agree() -> None:
    storage = copy()
    stranger = seal(KEPT[log_key(9)][:-66].replace(b"a9", b"b9"))
    replace(storage, log_key(9), stranger)
    report = recover(storage)
    assert_whole(storage, report)
    assert stranger in contents(storage).values()


def test_two_histories_are_told_and_left_alone() -> None:
    """Entries of a fork that were copied in where this log had ended: both chains are sound."""
    fork = Ledger(memory_of({k: v for k, v in KEPT.items() if k not in (log_key(259), log_key(260))}))
    fork.here = [position for position, _, _ in read_log(fork.storage, fork.here)][-1]
    for n in range(259, 263):
        fork.append(alias(f"fork{n}", version_of(record(1))))
    storage = copy()
    for n in (261, 262):
        storage.put_new(log_key(n), fork.storage.get(log_key(n)))
    before = contents(storage)
    report = recover(storage, sources=[fork.storage])
    assert (report.breaks, report.lost, report.whole) == ([261], [], LAST)
    assert not report.complete
    assert contents(storage) == before
    # So it is where the last entry of one's own is damaged: the other's is not taken for it.
    replace(storage, log_key(260), b"")
    before = contents(storage)
    report = recover(storage, sources=[fork.storage])
    assert [lost.first for lost in report.lost] == [260]
    assert contents(storage) == before


def test_what_is_lost_is_told_from_what_is_around_it() -> None:
    ledger = Ledger()
    ledger.append(add_pack(1), add_version(1, name="first"))
    ledger.append(add_pack(2), add_version(2, name="second", packs=(2,)))
    ledger.append(alias("production", version_of(record(2))))
    ledger.append(add_pack(3), add_version(3, name="third", packs=(3,)))
    for number in (1, 2):
        name = f"{number:032x}"
        ledger.storage.put_new(f"packs/{name[:2]}/{name}.pack", b"")
    replace(ledger.storage, log_key(2), None)
    report = recover(ledger.storage)
    (lost,) = report.lost
    assert (lost.first, lost.last, lost.reason) == (2, 2, "it is missing")
    assert (lost.after, lost.before) == ("2026-03-01T00:01:00.000000Z", "2026-03-01T00:03:00.000000Z")
    assert [v.id for v in lost.versions] == [version_of(record(2))]
    assert [v.name for v in report.out_of_reach] == ["third"]
    assert (report.whole, report.entries, report.unnamed_packs) == (1, 4, 1)
    assert report.to_dict()["complete"] is False


def test_a_dry_run_says_the_same_and_writes_nothing() -> None:
    storage = copy()
    for key in (log_key(3), log_key(4), "stemmata.json", BUNDLE):
        replace(storage, key, None)
    source = copy()
    watched = FaultyStorage(storage)
    planned = recover(watched, sources=[source], dry_run=True)
    assert watched.log == []
    done = recover(storage, sources=[source])
    assert planned.recovered == done.recovered
    assert len(done.recovered) == 4
    assert_whole(storage, done)


@pytest.mark.usefixtures("small_bundles")
def test_i5_a_crash_at_any_write_loses_nothing_and_is_gone_on_from() -> None:
    ledger = Ledger()
    for n in range(1, 10):
        ledger.append(add_pack(n))
        write_due_bundles(ledger.storage, n)
    kept = contents(ledger.storage)
    first, second = (key for key in kept if key.startswith("bundles/"))

    def hurt() -> MemoryStorage:
        storage = memory_of(kept)
        damage(storage, log_key(1), Damage.CUT, 9)
        replace(storage, log_key(8), b"x" * 500)
        damage(storage, second, Damage.FLIP, 30)
        for key in (log_key(7), "stemmata.json", first):
            replace(storage, key, None)
        return storage

    source = memory_of(kept)
    counting = FaultyStorage(hurt())
    recover(counting, sources=[source])
    assert counting.writes >= 9
    for at, fault in every_fault(counting.writes):
        inner = hurt()
        before = contents(inner)
        run_into(fault, lambda s=inner, a=at, f=fault: recover(FaultyStorage(s, a, f), sources=[source]))
        here = contents(inner)
        for key, data in before.items():
            # What was there is there, under its key or aside; a bundle goes when nothing needs it.
            is_kept = here.get(key) == data or any(v == data for k, v in here.items() if k.startswith(ASIDE))
            assert is_kept or key == second, (counting.log[at], fault)
        assert recover(inner, sources=[source]).complete
        assert stored(inner) == stored(source), (counting.log[at], fault)


def test_no_save_goes_into_what_a_recovery_that_was_cut_off_left_open() -> None:
    """Not even of a writer that has read up to the hole and asks for nothing before it."""
    ledger = Ledger()
    for n in range(1, 10):
        ledger.append(add_pack(n))
    kept = contents(ledger.storage)
    short = {key: data for key, data in kept.items() if key < log_key(5) or not key.startswith("log/")}
    source = memory_of(kept)
    recover(counting := FaultyStorage(memory_of(short)), sources=[source])
    assert counting.writes == 5
    for at, fault in every_fault(counting.writes, CRASHES):
        inner = memory_of(short)
        with closing(Catalog(inner, ledger.identity, [])) as catalog:
            catalog.refresh()
            run_into(fault, lambda s=inner, a=at, f=fault: recover(FaultyStorage(s, a, f), sources=[source]))
            there = {n for n in range(5, 10) if log_key(n) in contents(inner)}
            if 0 < len(there) < 5:
                with pytest.raises(DamagedLog, match="entry 5"):
                    commit(catalog, inner, lambda _: [add_pack(77)], by="anyone")
        assert recover(inner, sources=[source]).complete
        assert contents(inner) == kept


def test_i9_a_newer_log_is_left_to_a_newer_release() -> None:
    ledger = Ledger()
    ledger.append(add_pack(1))
    ledger.storage.put_new(log_key(3), b"")
    body = ledger.body(format=9)
    ledger.storage.put_new(log_key(2), seal(msgspec.json.encode(body)))
    with pytest.raises(NewerFormat):
        recover(ledger.storage)


def test_where_there_is_no_repository_there_is_nothing_to_recover() -> None:
    with pytest.raises(RepositoryNotFound):
        recover(MemoryStorage(), sources=[copy()])


def test_a_number_beyond_reason_is_refused() -> None:
    storage = copy()
    storage.put_new(log_key(10**19), b"")
    with pytest.raises(HostileData):
        recover(storage)


def test_the_surface() -> None:
    surface = ["Lost", "Recovered", "RecoveryReport", "Vanished", "copies_at", "readable", "recover"]
    assert sorted(recovering.__all__) == surface
