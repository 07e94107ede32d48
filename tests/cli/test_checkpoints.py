"""Checkpoints of the log, as they are typed of: due, written, damaged, made anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from faults import Damage, damage
from stemmata.catalog import checkpoints
from stemmata.catalog.checkpoints import find_checkpoints
from stemmata.storage.local import LocalStorage


def test_a_checkpoint_is_told_of_from_its_lack_to_its_repair(
    shop: Path,
    cli,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 8)
    storage = LocalStorage(shop / ".stemmata")
    due = cli("check", "--level", "structure")
    assert due.code == 0
    assert "1 checkpoint that is missing or not used" in due.out
    assert "stemmata gc writes it" in due.out
    assert "written, with which a cold open begins" in cli("gc", "-y").out
    assert "Nothing to free." in cli("gc", "-y").out
    assert "checkpoints  made of the log" in cli("stats").out

    before = cli("log", "--json").out
    shutil.rmtree(shop / ".stemmata" / "cache")
    assert cli("log", "--json").out == before

    (name,) = find_checkpoints(storage)
    damage(storage, name.key, Damage.FLIP, 4000)
    found = cli("check", "--level", "structure")
    assert found.code == 5
    assert "1 damaged checkpoint" in found.out
    assert name.key in found.out
    shutil.rmtree(shop / ".stemmata" / "cache")
    assert cli("log", "--json").out == before

    would = cli("check", "--repair", "--dry-run", "--level", "structure")
    assert would.code == 5
    assert "1 checkpoint of the log would be made anew" in would.out
    done = cli("check", "--repair", "--level", "structure")
    assert done.code == 0
    assert "1 checkpoint of the log made anew" in done.out
    assert find_checkpoints(storage) != [name]
    assert cli("check").code == 0
