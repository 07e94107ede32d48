"""A name that was written, and of which nobody was told that it stays, is synced anew before it counts."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from stemmata.errors import StorageFailed
from stemmata.storage import local
from stemmata.storage.local import LocalStorage


@pytest.fixture
def store(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def _failing_syncs(monkeypatch: pytest.MonkeyPatch, times: int) -> list[Path]:
    """Syncing a folder fails so often; those that were synced afterwards."""
    whole, failures, done = local.sync_folder, [0], []

    def sync(folder: Path) -> None:
        failures[0] += 1
        if failures[0] <= times:
            raise OSError(errno.EMFILE, "too many open files")
        whole(folder)
        done.append(folder)

    monkeypatch.setattr(local, "sync_folder", sync)
    monkeypatch.setattr(local, "_BETWEEN_SYNCS", 0)
    return done


def test_i1_a_name_is_made_durable_by_syncing_its_folder_until_that_succeeds(
    tmp_path: Path, store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_new("log/0", b"")
    done = _failing_syncs(monkeypatch, 3)
    store.make_durable("log/0")
    assert done == [tmp_path / "log"]


def test_i1_a_name_that_cannot_be_made_durable_is_said_so(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_new("log/0", b"")
    _failing_syncs(monkeypatch, 1000)
    with pytest.raises(StorageFailed, match="too many open files"):
        store.make_durable("log/0")
