"""Any flipped, cut or zeroed byte of the store: found by a check, never handed out (I4)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import faults
from campaigns import cases
from stemmata.checking import check
from stemmata.cli.main import run
from stemmata.errors import Damage as DamageError
from stemmata.repository import Repository
from stemmata.storage.local import LocalStorage
from stored import Stored, read_or_refuse

HOW = st.sampled_from(
    [faults.Damage.FLIP, faults.Damage.ZERO, faults.Damage.CUT, faults.Damage.EMPTY, faults.Damage.GROW]
)
PLACE = st.integers(0, 1 << 24)
CHOICE = st.integers(0, 1 << 24)
RUNS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def spoil(stored: Stored, choice: int, how: faults.Damage, at: int) -> tuple[str, bytes]:
    """One key of the repository and its bytes gone bad."""
    # Kinds of files first, so that a bundle is met as often as a pack.
    kinds = sorted({key.split("/")[0] for key in stored.kept})
    keys = [key for key in sorted(stored.kept) if key.split("/")[0] == kinds[choice % len(kinds)]]
    key = keys[choice // len(kinds) % len(keys)]
    bad = faults.damaged(stored.kept[key], how, at)
    assert bad is not None
    assume(bad != stored.kept[key])
    return key, bad


def hold(kept: dict[str, bytes], stored: Stored, key: str) -> None:
    """Both halves of the promise, of a repository in memory: no cache can help or hinder."""
    storage = faults.memory_of(kept)
    report = check(storage)
    assert not report.sound
    assert report.problems
    try:
        repo = Repository(faults.memory_of(kept))
    except DamageError:
        assert not key.startswith("packs/")
        return
    with repo:
        read_or_refuse(repo, stored)


@given(CHOICE, HOW, PLACE)
@settings(RUNS, max_examples=cases(100, 300))
def test_i4_damage_is_found_and_never_handed_out(
    stored: Stored, choice: int, how: faults.Damage, at: int
) -> None:
    key, bad = spoil(stored, choice, how, at)
    hold({**stored.kept, key: bad}, stored, key)


@given(CHOICE, HOW, PLACE)
@settings(RUNS, max_examples=cases(20, 50))
def test_i4_so_it_is_with_bundles(bundled: Stored, choice: int, how: faults.Damage, at: int) -> None:
    key, bad = spoil(bundled, choice, how, at)
    hold({**bundled.kept, key: bad}, bundled, key)


@given(CHOICE, HOW, PLACE)
@settings(RUNS, max_examples=cases(20, 50))
def test_i8_a_catalog_that_was_kept_hides_no_damage(
    stored: Stored, tmp_path_factory: pytest.TempPathFactory, choice: int, how: faults.Damage, at: int
) -> None:
    key, bad = spoil(stored, choice, how, at)
    root = stored.lay_out(tmp_path_factory.mktemp("kept") / "repo")
    with Repository(LocalStorage(root)) as repo:
        assert read_or_refuse(repo, stored) == 0
    assert (root / "cache").is_dir()
    (root / key).write_bytes(bad)
    assert not check(LocalStorage(root)).sound
    try:
        repo = Repository(LocalStorage(root))
    except DamageError:
        return
    with repo:
        read_or_refuse(repo, stored)


@given(CHOICE, st.sampled_from([faults.Damage.FLIP, faults.Damage.ZERO]), PLACE)
@settings(RUNS, max_examples=cases(30, 60))
def test_a_quick_check_finds_the_same_damage(
    stored: Stored, choice: int, how: faults.Damage, at: int
) -> None:
    key, bad = spoil(stored, choice, how, at)
    assert not check(faults.memory_of({**stored.kept, key: bad}), level="stored").sound


def test_every_byte_of_a_pack_counts(stored: Stored) -> None:
    key = min((k for k in stored.kept if k.startswith("packs/")), key=lambda k: len(stored.kept[k]))
    data = stored.kept[key]
    for at in range(0, len(data), max(1, len(data) // cases(80, 200))):
        bad = faults.damaged(data, faults.Damage.FLIP, at)
        assert bad is not None
        report = check(faults.memory_of({**stored.kept, key: bad}), level="stored")
        assert [p.where for p in report.problems if p.kind == "pack"] == [key], at


def test_the_command_exits_with_5_and_names_what_is_affected(
    stored: Stored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = stored.lay_out(tmp_path / "repo")
    assert run(["check", "-R", str(root)]) == 0
    assert capsys.readouterr().out.startswith("sound")
    key = next(k for k in stored.kept if k.startswith("packs/"))
    (root / key).unlink()
    assert run(["check", "-R", str(root)]) == 5
    shown = capsys.readouterr().out
    assert "affected" in shown
    assert key in shown
    assert shown.splitlines()[-1].startswith("damaged")
