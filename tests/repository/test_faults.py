"""A fault at every write of a save, in every way (I1, I5, I6)."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path

import pytest

import stemmata
from faults import Fault, FaultyStorage, contents, memory_of, run_into
from makers import model_folder
from stemmata import errors
from stemmata.log.identity import create_identity
from stemmata.repository import Repository
from stemmata.storage import local
from stemmata.storage.memory import MemoryStorage


def prepared(folder: Path) -> dict[str, bytes]:
    """A repository with one version and an alias, as bytes to start each attempt from."""
    storage = MemoryStorage()
    create_identity(storage)
    repo = Repository(storage)
    version = repo.save(model_folder(folder, 1), "m", name="first", provenance={})
    repo.alias("m", "production", version)
    return contents(storage)


def save_second(storage: FaultyStorage | MemoryStorage, folder: Path) -> None:
    repo = Repository(storage)
    repo.save(folder, "m", name="second", alias="production", provenance={"command": b"{}"})


def writes_of_a_save(start: dict[str, bytes], folder: Path) -> list[str]:
    counting = FaultyStorage(memory_of(start))
    save_second(counting, folder)
    return counting.log


def test_a_save_writes_packs_before_its_one_log_entry(tmp_path: Path) -> None:
    start = prepared(tmp_path / "a")
    log = writes_of_a_save(start, model_folder(tmp_path / "b", 2))
    assert log[-1].startswith("put_new log/") or log[-1].startswith("commit log/")
    entries = [w for w in log if "log/" in w and w.split()[0] in ("put_new", "commit")]
    assert len(entries) == 1
    packs = [i for i, w in enumerate(log) if w.startswith("commit packs/")]
    assert packs
    assert max(packs) < log.index(entries[0])


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("fault", list(Fault), ids=lambda f: f.name)
def test_i5_any_fault_at_any_write_leaves_before_or_after(
    tmp_path: Path, fault: Fault, lasting: bool
) -> None:
    start = prepared(tmp_path / "a")
    second = model_folder(tmp_path / "b", 2)
    expected = (second / "model.safetensors").read_bytes()
    writes = writes_of_a_save(start, second)
    outcomes = set()
    for at in range(len(writes)):
        inner = memory_of(start)
        storage = FaultyStorage(inner, at, fault, lasting=lasting)
        error = run_into(fault, partial(save_second, storage, second))
        repo = Repository(inner)
        names = {v.name for v in repo.versions("m")}
        assert names in ({"first"}, {"first", "second"}), (at, writes[at])
        assert repo["m@production"].name == ("second" if "second" in names else "first")
        assert repo.check().problems == [], (at, writes[at])
        assert repo["m@first"].read("config.json")
        if "second" in names:
            assert repo["m@second"].read("model.safetensors") == expected
        elif error is None:
            pytest.fail(f"save said it succeeded, yet nothing is there: {fault} at {writes[at]}")
        outcomes.add("second" in names)
        if "second" not in names:
            save_second(inner, second)
            assert Repository(inner)["m@production"].read("model.safetensors") == expected
    assert False in outcomes or fault in (Fault.AFTER, Fault.REPLY_LOST)


@pytest.mark.parametrize("fault", [Fault.ENOSPC, Fault.EIO], ids=lambda f: f.name)
def test_a_failing_disk_is_told_as_such(tmp_path: Path, fault: Fault) -> None:
    start = prepared(tmp_path / "a")
    second = model_folder(tmp_path / "b", 2)
    expected = errors.StorageFull if fault is Fault.ENOSPC else errors.StorageFailed
    for at in range(len(writes_of_a_save(start, second))):
        storage = FaultyStorage(memory_of(start), at, fault, lasting=True)
        with pytest.raises(expected, match="earlier versions are untouched"):
            save_second(storage, second)


def test_a_reply_that_is_lost_is_settled_by_reading(tmp_path: Path) -> None:
    """The commit's answer is lost in every way: the save finds out and says so."""
    start = prepared(tmp_path / "a")
    second = model_folder(tmp_path / "b", 2)
    last = len(writes_of_a_save(start, second)) - 1
    for fault in (Fault.AFTER, Fault.REPLY_LOST, Fault.UNKNOWN):
        inner = memory_of(start)
        save_second(FaultyStorage(inner, last, fault), second)
        assert [v.name for v in Repository(inner).versions("m")] == ["second", "first"], fault


def test_an_outcome_that_stays_unknown_is_reported_as_unknown(tmp_path: Path) -> None:
    start = prepared(tmp_path / "a")
    second = model_folder(tmp_path / "b", 2)
    last = len(writes_of_a_save(start, second)) - 1
    inner = memory_of(start)
    with pytest.raises(errors.CommitUnknown) as caught:
        save_second(FaultyStorage(inner, last, Fault.UNKNOWN, lasting=True), second)
    assert str(caught.value.data["txn"]) in str(caught.value)
    assert [v.name for v in Repository(inner).versions("m")] == ["first"]


@pytest.mark.parametrize(
    ("where", "expected"), [("log", errors.CommitUnknown), ("packs", errors.StorageFailed)]
)
@pytest.mark.parametrize("times", [2, 10_000])
def test_i1_no_save_succeeds_while_the_folder_of_what_it_wrote_cannot_be_synced(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    expected: type[errors.StemmataError],
    times: int,
) -> None:
    with stemmata.open(tmp_path / "r", create=True) as repo:
        repo.save(model_folder(tmp_path / "a", 1), "m", name="first", provenance={})
        whole, failures = local.sync_folder, []

        def sync(folder: Path) -> None:
            # A new folder's own name is synced in `packs` itself, before there is anything in it.
            if where in (folder.name, folder.parent.name) and folder.name != "packs":
                failures.append(folder)
                if len(failures) <= times:
                    raise OSError(errno.EMFILE, "too many open files")
            whole(folder)

        monkeypatch.setattr(local, "sync_folder", sync)
        monkeypatch.setattr(local, "_BETWEEN_SYNCS", 0)
        if times > 1000:
            with pytest.raises(expected):
                repo.save(model_folder(tmp_path / "b", 2), "m", name="second", provenance={})
        else:
            repo.save(model_folder(tmp_path / "b", 2), "m", name="second", provenance={})
            assert len(failures) > times
