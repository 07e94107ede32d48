"""The limit of the cached checkouts: what goes, and what never does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from stemmata.checkouts import eviction
from stemmata.checkouts.cached import shared
from stemmata.errors import InvalidArgument
from stemmata.ids import VersionId
from trees_by_hand import Objects, contents_of, tree_of

LONG_AGO = time.time() - 86_400


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has handed out nothing."""
    monkeypatch.setattr(eviction, "_handed_out", set())
    monkeypatch.delenv(eviction.VARIABLE, raising=False)


def made(cache: Path, name: str, size: int, age: int | None) -> Path:
    """A checkout of `size` bytes, last handed out `age` seconds before yesterday; None: just now."""
    objects = Objects()
    path = shared(cache, VersionId.of(name.encode()), tree_of({"a": b"x" * size}, objects), objects.read)
    if age is not None:
        eviction._handed_out.clear()
        os.utime(path.parent, (LONG_AGO - age, LONG_AGO - age))
    return path


def test_those_used_longest_ago_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    middle, oldest = made(tmp_path, "m", 100, 20), made(tmp_path, "o", 100, 30)
    newest = made(tmp_path, "n", 100, 10)
    monkeypatch.setenv(eviction.VARIABLE, "300")
    fresh = made(tmp_path, "f", 100, None)
    assert [p.exists() for p in (oldest, middle, newest, fresh)] == [False, True, True, True]
    assert sorted(p.name for p in (tmp_path / "checkouts").glob(".*") if p.suffix != ".lock") == []


def test_to_be_asked_for_again_is_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = made(tmp_path, "1", 100, 20), made(tmp_path, "2", 100, 10)
    made(tmp_path, "1", 100, None)
    eviction._handed_out.clear()
    monkeypatch.setenv(eviction.VARIABLE, "200")
    made(tmp_path, "3", 100, None)
    assert first.exists()
    assert not second.exists()


def test_what_this_process_handed_out_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = made(tmp_path, "held", 100, None)
    os.utime(held.parent, (LONG_AGO, LONG_AGO))
    monkeypatch.setenv(eviction.VARIABLE, "0")
    made(tmp_path, "other", 100, None)
    assert held.exists()


def test_what_another_process_handed_out_lately_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = made(tmp_path, "theirs", 100, None)
    eviction._handed_out.clear()
    monkeypatch.setenv(eviction.VARIABLE, "0")
    made(tmp_path, "other", 100, None)
    assert theirs.exists()


def test_what_went_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = made(tmp_path, "1", 100, 10)
    monkeypatch.setenv(eviction.VARIABLE, "0")
    made(tmp_path, "2", 10, None)
    assert not gone.exists()
    assert contents_of(made(tmp_path, "1", 100, None))[0] == {"a": b"x" * 100}


def test_one_that_cannot_be_removed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = made(tmp_path, "1", 100, 10)
    monkeypatch.setenv(eviction.VARIABLE, "0")

    with monkeypatch.context() as patched:
        patched.setattr(eviction, "random_hex", lambda _: "x/y")  # no such folder to move to
        eviction.make_room(tmp_path / "checkouts")
    assert stays.exists()


def test_without_a_limit_nothing_goes(tmp_path: Path) -> None:
    kept = [made(tmp_path, str(n), 100, n) for n in range(3)]
    made(tmp_path, "last", 100, None)
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize(
    ("given", "size"),
    [("", None), ("0", 0), ("20GB", 20 * 10**9), ("1.5 GiB", 3 << 29), ("500m", 500 * 10**6), ("7 b", 7)],
)
def test_sizes_are_written_as_people_write_them(
    given: str, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(eviction.VARIABLE, given)
    assert eviction.limit() == size


@pytest.mark.parametrize("given", ["much", "-1", "1 XB", "GB", "9" * 400])
def test_what_is_no_size_is_refused_by_name(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(eviction.VARIABLE, given)
    with pytest.raises(InvalidArgument, match=eviction.VARIABLE):
        eviction.limit()


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert eviction.checkouts(tmp_path / "none") == []


def test_what_was_handed_out_by_another_spelling_of_the_cache_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    held = made(tmp_path / "link", "held", 100, None)
    os.utime(held.parent, (LONG_AGO, LONG_AGO))
    monkeypatch.setenv(eviction.VARIABLE, "0")
    made(tmp_path / "real", "other", 100, None)
    assert held.exists()
