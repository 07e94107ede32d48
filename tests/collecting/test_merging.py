"""Small packs are put together after the save that made them many."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from faults import Damage, Fault, FaultyStorage, contents, damage, memory_of, run_into
from shop import Epochs, live, packs_bytes, require_sound
from stemmata.codecs.dtypes import BYTES
from stemmata.codecs.frames import MIN_STORED
from stemmata.codecs.hashing import digest_of
from stemmata.codecs.objectcode import encode_object
from stemmata.collecting import dropping, merging, small
from stemmata.collecting.copies import LivePack
from stemmata.collecting.picture import live_packs
from stemmata.errors import DamagedObject, InvalidArgument
from stemmata.ids import Digest, PackName
from stemmata.log.identity import create_identity
from stemmata.objects import ObjectReader
from stemmata.objects.writing import PACK_BYTES
from stemmata.packindex import ROW
from stemmata.packs import MAX_OBJECTS, PackReader, PackSummary, PackWriter
from stemmata.repository import Repository
from stemmata.session import Session
from stemmata.storage.memory import MemoryStorage


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in small: three packs of single saves become one, three of those one that is left alone."""
    monkeypatch.setattr(small, "SINGLES", 3)
    monkeypatch.setattr(small, "GROWNS", 3)
    monkeypatch.setattr(small, "SINGLE", 12_000)
    monkeypatch.setattr(small, "GROWN", 30_000)


def require_whole(epochs: Epochs, repo: Repository, count: int) -> None:
    """Every version reads, and `check` finds nothing."""
    for k in range(count):
        epochs.require(repo, k)
    require_sound(repo.session.storage)


def test_packs_stay_few_and_every_version_reads(small_epochs: Epochs) -> None:
    repo = Repository.in_memory()
    counts = []
    last = None
    for k in range(20):
        last = small_epochs.save(repo, k, last)
        counts.append(live(repo))
    assert max(counts) <= 7
    require_whole(small_epochs, repo, 20)
    repo.gc(grace=0)
    assert len(list(repo.session.storage.list("packs/"))) <= max(counts)
    require_whole(small_epochs, repo, 20)


@pytest.mark.parametrize("most", [4000, 0])
def test_what_was_merged_away_goes_with_a_later_save_unless_the_log_is_long(
    small_epochs: Epochs, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """It folds all of the log; of a long one that is left to a collection."""
    monkeypatch.setattr(dropping, "READERS", 0)
    monkeypatch.setattr(merging, "_MOST_ENTRIES", most)
    repo = Repository.in_memory()
    last = None
    for k in range(20):
        last = small_epochs.save(repo, k, last)
    sql = "SELECT COUNT(*) FROM packs WHERE state = ?"
    (dropped,), (retired,) = (
        repo.session.catalog.connection.execute(sql, (state,)).fetchone() for state in ("dropped", "retired")
    )
    assert (dropped > 0) is (most > 0)
    assert dropped + retired > 10
    require_whole(small_epochs, repo, 20)


def test_nothing_is_merged_where_that_is_not_wanted(
    small_epochs: Epochs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(small.VARIABLE, "off")
    repo = Repository.in_memory()
    small_epochs.history(repo, 4)
    assert live(repo) == 4
    monkeypatch.setenv(small.VARIABLE, "perhaps")
    with pytest.raises(InvalidArgument):
        repo.save(small_epochs.folder(4), "m", provenance={})
    assert len(repo.versions("m")) == 4


def test_what_a_pack_that_stays_leans_on_stays(small_epochs: Epochs, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = Repository.in_memory()
    with monkeypatch.context() as off:
        off.setenv(small.VARIABLE, "off")
        small_epochs.history(repo, 4)
    packs = {p.name: p for p in merging.live_packs(repo.session.catalog)}
    leaning = [p for p in packs.values() if p.bases]
    assert leaning
    # As if the last one were too large to be put together with others.
    monkeypatch.setattr(small, "GROWN", 10**9)
    monkeypatch.setattr(merging, "_is_used_by_many", lambda _, name: name == leaning[-1].name)
    chosen = {p.name for p in merging.choose(repo.session.catalog)}
    assert chosen.isdisjoint({leaning[-1].name, *leaning[-1].bases})


def test_a_save_that_leans_on_what_is_being_merged_wins(small_epochs: Epochs) -> None:
    inner = MemoryStorage()
    create_identity(inner)
    faulty = FaultyStorage(inner)
    here, other = Repository(faulty), Repository(inner)
    versions = small_epochs.history(here, 2)
    happened: list[str] = []

    def act(name: str) -> None:
        entries = sum(1 for each in faulty.log if each.startswith("put_new log/"))
        if not happened and name.startswith("put_new log/") and entries == 3:
            happened.append(name)
            small_epochs.save(other, 5, other.get(versions[1].id))

    faulty.before_write = act
    small_epochs.save(here, 2, versions[1])
    assert happened
    for k in (0, 1, 2, 5):
        small_epochs.require(other, k)
    require_sound(inner)
    known = other.session.catalog.connection.execute("SELECT COUNT(*) FROM packs").fetchone()[0]
    assert len(list(inner.list("packs/"))) == known  # what a merge gave up lies nowhere


def test_a_merge_that_is_killed_at_any_write_costs_nothing(small_epochs: Epochs) -> None:
    start = Repository.in_memory()
    versions = small_epochs.history(start, 2)
    kept = contents(start.session.storage)

    def save(storage: FaultyStorage) -> None:
        with Repository(storage) as repo:
            small_epochs.save(repo, 2, repo.get(versions[1].id))

    whole = FaultyStorage(memory_of(kept))
    save(whole)
    assert sum(1 for name in whole.log if name.startswith("put_new log/")) == 2
    for at in range(whole.writes):
        for fault in (Fault.CRASH_AFTER, Fault.ENOSPC):
            inner = memory_of(kept)
            run_into(fault, lambda i=inner, at=at, fault=fault: save(FaultyStorage(i, at, fault)))  # type: ignore[misc]
            with Repository(inner) as repo:
                for k in range(2):
                    small_epochs.require(repo, k)
                repo.gc(grace=0)
                if at >= 4:  # its own entry is written
                    small_epochs.require(repo, 2)
            require_sound(inner)
    assert packs_bytes(whole)


def test_of_many_small_packs_one_save_takes_a_bounded_part(
    small_epochs: Epochs, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repository.in_memory()
    with monkeypatch.context() as off:
        off.setenv(small.VARIABLE, "off")
        for k in range(14):
            small_epochs.save(repo, k)
    monkeypatch.setattr(small, "MOST", 5)
    counts = [live(repo)]
    for k in range(14, 18):
        small_epochs.save(repo, k)
        counts.append(live(repo))
    assert counts[:4] == [14, 11, 8, 5]
    assert counts[4] < counts[3]
    require_whole(small_epochs, repo, 18)


def test_what_leans_on_what_is_put_together_is_part_of_it(
    small_epochs: Epochs, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repository.in_memory()
    with monkeypatch.context() as off:
        off.setenv(small.VARIABLE, "off")
        small_epochs.history(repo, 8)
    packs = live_packs(repo.session.catalog)
    monkeypatch.setattr(small, "MOST", 5)
    assert merging.choose(repo.session.catalog) == packs[-5:]
    monkeypatch.setattr(small, "SINGLE", (sum(p.size for p in packs[-4:]) + packs[-5].size // 2) // 3)
    monkeypatch.setattr(small, "GROWN", 0)
    assert merging.choose(repo.session.catalog) == []
    monkeypatch.setattr(small, "GROWN", small.SINGLE)
    monkeypatch.setattr(small, "GROWNS", 0)
    assert merging.choose(repo.session.catalog) == packs[-4:]


def test_the_most_that_is_put_together_is_no_more_than_a_pack_may_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    assert small.most_bytes() // (ROW.size + MIN_STORED) < MAX_OBJECTS
    assert small.most_bytes() < PACK_BYTES
    # It always gets on: of the largest there are enough, of the smallest too.
    assert small.most_bytes() >= (small.GROWNS - 1) * small.GROWN + small.SINGLES * small.SINGLE
    assert small.MOST >= small.GROWNS + small.SINGLES


def test_a_merged_pack_is_read_back_before_the_log_names_it(
    small_epochs: Epochs, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repository.in_memory()
    small_epochs.history(repo, 2)
    write = merging._write

    def rotten(session: Session, chosen: list[LivePack]) -> PackSummary:
        new = write(session, chosen)
        damage(session.storage, new.name.key, Damage.FLIP, new.size // 2)
        return new

    monkeypatch.setattr(merging, "_write", rotten)
    small_epochs.save(repo, 2)
    assert live(repo) == 3
    assert len(list(repo.session.storage.list("packs/"))) == 3
    require_whole(small_epochs, repo, 3)


def test_a_foreign_file_beside_the_log_is_no_obstacle(
    small_epochs: Epochs, caplog: pytest.LogCaptureFixture
) -> None:
    repo = Repository.in_memory()
    repo.session.storage.put_new("log/notes.txt", b"of somebody else")
    with caplog.at_level(logging.DEBUG, "stemmata"):
        for k in range(12):
            small_epochs.save(repo, k)
    assert live(repo) <= 7
    assert "merged" not in caplog.text


def lay(repo: Repository, *contents: bytes) -> PackName:
    """A pack of its own for these, in one entry."""
    writer = PackWriter(repo.session.storage)
    for data in contents:
        writer.add(digest_of(data), [encode_object(data, BYTES)], len(data))
    made = writer.commit()
    repo.session.commit(lambda _: [], new_packs=[made])
    return made.name


def test_damaged_packs_stay_as_they_are_and_the_others_are_put_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []
    write = merging._write

    def counted(session: Session, chosen: list[LivePack]) -> PackSummary:
        tries.append(len(chosen))
        return write(session, chosen)

    monkeypatch.setattr(merging, "_write", counted)
    with Repository.in_memory() as repo, caplog.at_level(logging.WARNING, "stemmata"):
        packs = [lay(repo, b"%d, and more of it" % i) for i in range(6)]
        for name in packs[1:3]:
            damage(repo.session.storage, name.key, Damage.FLIP, 20)
        assert merging.merge_small(repo.session) == 4
        assert tries == [6, 5, 4]
        live = {pack.name for pack in live_packs(repo.session.catalog)}
        assert live & set(packs) == set(packs[1:3])
        assert len(live) == 3
        for i in range(6, 12):
            lay(repo, b"%d, and more of it" % i)
            merging.merge_small(repo.session)
        assert len(tries) == 6  # of the damaged ones none was tried again
        assert len(caplog.records) == 2
        assert all(str(name) in caplog.text for name in packs[1:3])


def test_a_pack_that_leans_on_what_is_missing_stays_as_it_is(
    small_epochs: Epochs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its base was in a pack that is to be merged, and is not there."""
    repo = Repository.in_memory()
    with monkeypatch.context() as off:
        off.setenv(small.VARIABLE, "off")
        small_epochs.history(repo, 2)
    first, second = live_packs(repo.session.catalog)
    assert second.bases == (first.name,)
    for i in range(3):
        lay(repo, b"%d, and more of it" % i)
    read_all = PackReader.read_all

    def lost(reader: PackReader) -> Iterator[tuple[Digest, int, memoryview]]:
        return iter(()) if reader.name == first.name else read_all(reader)

    monkeypatch.setattr(PackReader, "read_all", lost)
    assert merging.merge_small(repo.session) == 3
    assert {first.name, second.name} < {pack.name for pack in live_packs(repo.session.catalog)}


def test_no_error_of_a_merge_is_one_of_the_save(
    small_epochs: Epochs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    repo = Repository.in_memory()
    small_epochs.history(repo, 2)

    def fails(*_: object) -> None:
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(merging, "merge", fails)
    with caplog.at_level(logging.WARNING, "stemmata"):
        small_epochs.save(repo, 2)
    assert "nobody thought of this" in caplog.text
    small_epochs.require(repo, 2)


def test_i7_one_of_two_copies_goes_only_if_the_other_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers that did not see each other have stored the same object."""
    with Repository.in_memory() as repo:
        session, data = repo.session, b"the same bytes " * 500
        packs = []
        for _ in range(2):
            writer = PackWriter(session.storage)
            writer.add(digest_of(data), [encode_object(data, BYTES)], len(data))
            packs.append(writer.commit())
        session.commit(lambda _: [], new_packs=packs)
        chosen = live_packs(session.catalog)
        assert len(merging._write(session, chosen).index) == 1

        def unreadable(reader: ObjectReader, digest: Digest, packs: object) -> bytes:
            raise DamagedObject(digest=digest, pack="of a base", reason="it leans on damage")

        monkeypatch.setattr(ObjectReader, "read", unreadable)
        with pytest.raises(merging._Unfit, match="it leans on damage"):
            merging._write(session, chosen)
        assert len(live_packs(session.catalog)) == 2
