"""Nothing is deleted because of a clock: ages are of the store's own times, and those are doubted."""

from __future__ import annotations

import pytest

from faults import FaultyStorage
from shop import Dated, Epochs, delete
from stemmata.errors import ClockDoubted
from stemmata.log import ops
from stemmata.log.identity import create_identity
from stemmata.packs import PackWriter
from stemmata.repository import Repository
from stemmata.storage.memory import MemoryStorage

DAY = 86400.0


@pytest.fixture
def dated() -> Dated:
    inner = MemoryStorage()
    create_identity(inner)
    return Dated(inner, now=100 * DAY)


def deleted(dated: Dated, epochs: Epochs) -> Repository:
    repo = Repository(dated)  # type: ignore[arg-type]
    delete(repo, epochs.history(repo, 2)[0])
    return repo


def test_the_window_is_over_by_the_stores_own_times(dated: Dated, epochs: Epochs) -> None:
    repo = deleted(dated, epochs)
    dated.now += 13 * DAY
    assert not repo.gc(grace=0).forgotten
    dated.now += 2 * DAY
    assert repo.gc(grace=0).forgotten


@pytest.mark.parametrize("foreign", ["log/notes.txt", "log/17.json"])
def test_what_is_no_entry_has_no_say(dated: Dated, epochs: Epochs, foreign: str) -> None:
    repo = deleted(dated, epochs)
    dated.inner.put_new(foreign, b"of somebody else")
    dated.times[foreign] = dated.now + 800 * DAY
    dated.now += 13 * DAY
    assert not repo.gc(grace=0).forgotten
    dated.now += 2 * DAY
    assert repo.gc(grace=0).forgotten
    assert dated.get(foreign) == b"of somebody else"


@pytest.mark.parametrize("days", [-40, 800])
def test_a_present_before_or_far_after_the_last_entry(dated: Dated, epochs: Epochs, days: int) -> None:
    repo = deleted(dated, epochs)
    before = {key.key for key in dated.list("")}
    dated.now += days * DAY
    with pytest.raises(ClockDoubted):
        repo.gc()
    assert {key.key for key in dated.list("")} == before
    epochs.require(repo, 1)


def test_a_clock_that_was_wrong_when_the_deletion_was_written(dated: Dated, epochs: Epochs) -> None:
    """A computer that begins in 1970 deletes; afterwards that looks like decades ago."""
    dated.now = 20_000 * DAY
    repo = Repository(dated)  # type: ignore[arg-type]
    first, second = epochs.history(repo, 2)
    dated.now = 1 * DAY
    delete(repo, first)
    dated.now = 20_001 * DAY
    repo.annotate(second, labels={"a": "b"})
    with pytest.raises(ClockDoubted):
        repo.gc()


def test_a_clock_that_was_ahead_when_others_wrote(dated: Dated, epochs: Epochs) -> None:
    repo = deleted(dated, epochs)
    dated.now += 900 * DAY
    repo.annotate("m@e1", labels={"a": "b"})
    with pytest.raises(ClockDoubted):
        repo.gc()
    assert not repo.gc(dry_run=True, undo_window=0).deleted


def test_a_clock_a_little_behind_is_no_reason_to_stop(dated: Dated, epochs: Epochs) -> None:
    repo = deleted(dated, epochs)
    dated.now -= 60
    assert not repo.gc().forgotten


def test_a_window_begins_anew_with_a_deletion_that_comes_while_a_collection_runs(epochs: Epochs) -> None:
    inner = MemoryStorage()
    create_identity(inner)
    faulty = FaultyStorage(inner)
    dated = Dated(faulty, now=100 * DAY)  # type: ignore[arg-type]
    repo = deleted(dated, epochs)
    version = repo.deleted("m")[0].version
    PackWriter(inner).commit()  # to be retired: a write between the look at the windows and the plan
    dated.now += 20 * DAY
    happened: list[str] = []

    def delete_anew(write: str) -> None:
        if not happened and write.startswith("put_new log/"):
            happened.append(write)
            other = Repository(dated)  # type: ignore[arg-type]
            other.session.commit(lambda _: [ops.VersionRestore(version=version.hex)])
            other.session.commit(lambda _: [ops.VersionDelete(version=version.hex)])

    faulty.before_write = delete_anew
    assert not repo.gc(grace=0).forgotten
    assert happened
    repo.session.commit(lambda _: [ops.VersionRestore(version=version.hex)])
    epochs.require(repo, 0)


def test_what_overrides_it(dated: Dated, epochs: Epochs) -> None:
    repo = deleted(dated, epochs)
    dated.now += 800 * DAY
    assert repo.gc(dry_run=True, trust_clock=True, now=dated.now).forgotten
    found = repo.gc(undo_window=0, grace=0)
    assert found.forgotten
    assert found.deleted
