"""Folders that checkouts fill before they take their place: whose they are, and when they go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stemmata.checkouts import write, writing
from stemmata.errors import TargetNotEmpty
from stemmata.trees import Tree
from trees_by_hand import FILES, FOLDERS, Objects, contents_of, leftovers


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another group")
def test_an_empty_folder_of_a_group_stays_the_groups(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    target = tmp_path / "shared"
    target.mkdir()
    os.chown(target, -1, 1234)
    target.chmod(0o2770)
    before = target.stat()
    write(tree, objects.read, target)
    after = target.stat()
    assert (after.st_ino, after.st_gid, after.st_mode) == (before.st_ino, 1234, before.st_mode)
    assert {path.stat().st_gid for path in target.rglob("*")} == {1234}
    assert contents_of(target) == (FILES, FOLDERS)
    assert leftovers(target) == leftovers(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another group")
def test_a_checkout_into_such_a_folder_that_was_killed_can_be_done_again(
    tmp_path: Path, tree: Tree, objects: Objects
) -> None:
    target = tmp_path / "shared"
    left = target / f".stemmata-{'0' * 16}"
    left.mkdir(parents=True)
    os.chown(target, -1, 1234)
    held = writing.hold_folder(left)
    assert held is not None
    with pytest.raises(TargetNotEmpty):
        write(tree, objects.read, target)  # another one fills it just now
    os.close(held)
    write(tree, objects.read, target)
    assert (target / "config.json").read_bytes() == FILES["config.json"]
    assert left.exists(), "for a while"


def test_what_a_killed_checkout_left_goes_after_a_while(tmp_path: Path, tree: Tree, objects: Objects) -> None:
    dead, alive, other = (tmp_path / f".stemmata-{rest}" for rest in ("0" * 16, "1" * 16, "x"))
    for left in (dead, alive, other):
        left.mkdir()
        os.utime(left, (1, 1))
    (other / "long").touch()
    busy = tmp_path / f".stemmata-{'2' * 16}"
    (busy / "files").mkdir(parents=True)
    (busy / "files" / "long").touch()
    os.utime(busy, (1, 1))
    held = writing.hold_folder(alive)
    assert held is not None
    write(tree, objects.read, tmp_path / "t")
    os.close(held)
    assert [left.exists() for left in (dead, alive, other, busy)] == [False, True, True, True]


@pytest.mark.parametrize("beside", [True, False])
def test_a_pipe_of_that_name_is_no_checkout_that_somebody_fills(
    tmp_path: Path, tree: Tree, objects: Objects, beside: bool
) -> None:
    """Whoever opens it waits for a writer, who never comes."""
    target = tmp_path / "shared/new"
    pipe = (tmp_path / "shared" if beside else target) / f"{writing.UNFINISHED}0123456789abcdef"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    os.utime(pipe, (1.0, 1.0))
    if not beside:
        with pytest.raises(TargetNotEmpty):
            write(tree, objects.read, target)
        return
    write(tree, objects.read, target)
    assert contents_of(target) == (FILES, sorted(FOLDERS))
    assert pipe.exists()
