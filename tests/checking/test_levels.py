"""How deep a check goes, which part it takes, and going on after an interruption."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

import faults
from chained import model, trained, written
from ledger import Ledger
from stemmata.checking import LEVELS, Level, Report, check
from stemmata.checking.extent import Extent
from stemmata.cli.main import run
from stemmata.errors import InvalidArgument
from stemmata.log.entries import Entry
from stemmata.log.identity import read_identity
from stemmata.log.ops import PackAdd
from stemmata.log.reader import read_log
from stemmata.repository import Repository
from stemmata.storage.local import LocalStorage
from stored import Stored


def packs_in(stored: Stored) -> list[str]:
    return sorted(key for key in stored.kept if key.startswith("packs/"))


def with_flip(stored: Stored, key: str, at: int) -> dict[str, bytes]:
    return {**stored.kept, key: faults.damaged(stored.kept[key], faults.Damage.FLIP, at) or b""}


@pytest.mark.parametrize(("level", "found"), [("structure", False), ("stored", True), ("full", True)])
def test_the_structure_does_not_look_at_payloads(stored: Stored, level: Level, found: bool) -> None:
    key = max(packs_in(stored), key=lambda k: len(stored.kept[k]))
    # A third into the largest pack is the payload of a tensor.
    kept = with_flip(stored, key, len(stored.kept[key]) // 3)
    assert check(faults.memory_of(kept), level=level).sound is not found


@pytest.mark.parametrize("how", [faults.Damage.CUT, faults.Damage.GROW, faults.Damage.EMPTY])
def test_the_structure_sees_cut_and_grown_packs(stored: Stored, how: faults.Damage) -> None:
    for key in packs_in(stored):
        kept = {**stored.kept, key: faults.damaged(stored.kept[key], how, 20) or b""}
        report = check(faults.memory_of(kept), level="structure")
        assert key in {p.where for p in report.problems}
        assert report.affected


def test_the_structure_names_what_a_missing_pack_takes_away(stored: Stored) -> None:
    for key in packs_in(stored):
        kept = {k: v for k, v in stored.kept.items() if k != key}
        swift = check(faults.memory_of(kept), level="structure")
        assert {a.id for a in swift.affected} >= {a.id for a in check(faults.memory_of(kept)).affected}


def test_the_structure_sees_a_damaged_header_of_an_object(stored: Stored) -> None:
    # The first object begins behind the magic; its first byte says that it is one.
    for key in packs_in(stored):
        report = check(faults.memory_of(with_flip(stored, key, 8)), level="structure")
        assert "object" in {p.kind for p in report.problems}


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_sees_a_base_that_the_log_does_not_name(tmp_path: Path, level: Level) -> None:
    """It reads well, as long as no collection deletes what it leans on."""
    forged = Ledger()
    with Repository.in_memory() as repo:
        before = None
        for tensors in (model(), trained(model(), 1)):
            written(tmp_path / "out", tensors)
            before = repo.save(tmp_path / "out", "m", parents=[before] if before else [], provenance={})
        kept = faults.contents(repo.session.storage)
    storage = faults.memory_of(kept)
    assert check(storage, level=level).sound
    for key, data in kept.items():
        if key.startswith("packs/"):
            forged.storage.put_new(key, data)
    leaning = set()
    for _, found, _ in read_log(storage, read_identity(storage).genesis):
        assert isinstance(found, Entry)
        leaning |= {op.pack for op in found.ops if isinstance(op, PackAdd) and op.bases}
        forged.append(*[replace(op, bases=[]) if isinstance(op, PackAdd) else op for op in found.ops])
    problems = check(forged.storage, level=level).problems
    assert {(p.kind, p.pack) for p in problems} == {("object", pack) for pack in leaning}
    assert all("does not name" in p.reason for p in problems)
    assert leaning


def test_stored_names_the_object_that_fails_its_checksum(stored: Stored) -> None:
    key = packs_in(stored)[0]
    report = check(faults.memory_of(with_flip(stored, key, 8)), level="stored")
    assert {"pack", "object"} <= {p.kind for p in report.problems}


def test_samples_of_all_seeds_together_meet_everything(stored: Stored) -> None:
    for key in packs_in(stored):
        kept = with_flip(stored, key, len(stored.kept[key]) // 3)
        seeds = range(20)
        found = [not check(faults.memory_of(kept), level="stored", sample=0.5, seed=s).sound for s in seeds]
        assert any(found)
        assert not all(found)


def test_a_seed_takes_the_same_sample(stored: Stored) -> None:
    first = check(faults.memory_of(stored.kept), sample=0.5)
    assert first.seed is not None
    again = check(faults.memory_of(stored.kept), sample=0.5, seed=first.seed)
    assert again == first


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": "deep"},
        {"sample": 0.0},
        {"sample": 1.5},
        {"sample": 0.5, "level": "structure"},
        {"sample": 0.5, "resume": True},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        Extent(**wrong)  # type: ignore[arg-type]


class Stop(Exception):
    """An interruption."""


def interrupted(root: Path, level: Level, bytes_done: int) -> None:
    def stop(done: int, _total: int) -> None:
        if done >= bytes_done:
            raise Stop

    with pytest.raises(Stop):
        check(LocalStorage(root), level=level, progress=stop)


def resumed(root: Path, level: Level) -> Report:
    return check(LocalStorage(root), level=level, resume=True)


@pytest.mark.parametrize("level", ["stored", "full"])
def test_an_interrupted_check_goes_on(stored: Stored, tmp_path: Path, level: Level) -> None:
    root = stored.lay_out(tmp_path / "repo")
    sizes = sum(len(stored.kept[key]) for key in packs_in(stored))
    interrupted(root, level, sizes - 1)
    report = resumed(root, level)
    assert report.sound
    assert report.resumed > 0
    whole = check(LocalStorage(root), level=level)
    assert whole.resumed == 0
    assert report.counts.bytes < whole.counts.bytes
    # It came to its end: there is nothing to go on with.
    assert resumed(root, level).resumed == 0


def test_a_pack_that_changed_since_is_read_again(stored: Stored, tmp_path: Path) -> None:
    root = stored.lay_out(tmp_path / "repo")
    interrupted(root, "stored", sum(len(stored.kept[key]) for key in packs_in(stored)) - 1)
    for key in packs_in(stored):
        path = root / key
        path.write_bytes(with_flip(stored, key, len(stored.kept[key]) // 2)[key])
        os.utime(path, (1, 1))
    report = resumed(root, "stored")
    assert {p.where for p in report.problems if p.kind == "pack"} == set(packs_in(stored))
    assert report.resumed == 0


def test_damage_found_before_an_interruption_is_found_again(stored: Stored, tmp_path: Path) -> None:
    root = stored.lay_out(tmp_path / "repo")
    key = packs_in(stored)[0]
    (root / key).write_bytes(with_flip(stored, key, len(stored.kept[key]) // 2)[key])
    interrupted(root, "stored", sum(len(stored.kept[key]) for key in packs_in(stored)) - 1)
    assert key in {p.where for p in resumed(root, "stored").problems}


@pytest.mark.parametrize("note", [b"", b"{}", b"[1]", b'{"repository":1}', b"\xff"])
def test_i8_a_note_that_says_nothing_is_no_harm(stored: Stored, tmp_path: Path, note: bytes) -> None:
    root = stored.lay_out(tmp_path / "repo")
    (root / "cache").mkdir()
    (root / "cache" / "check-full.json").write_bytes(note)
    report = resumed(root, "full")
    assert report.sound
    assert report.resumed == 0


def test_i8_a_note_of_another_log_is_not_believed(stored: Stored, tmp_path: Path) -> None:
    root = stored.lay_out(tmp_path / "repo")
    interrupted(root, "stored", sum(len(stored.kept[key]) for key in packs_in(stored)) - 1)
    last = max(k for k in stored.kept if k.startswith("log/"))
    (root / last).unlink()
    assert resumed(root, "stored").resumed == 0


def test_the_command_line_takes_all_this(
    stored: Stored, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    root = str(stored.lay_out(tmp_path / "repo"))
    assert run(["-R", root, "check", "--level", "structure"]) == 0
    assert "--level structure" in capsys.readouterr().out
    assert run(["-R", root, "check", "--sample", "50%", "--seed", "7"]) == 0
    assert "a sample of 50% (--seed 7)" in capsys.readouterr().out
    assert run(["-R", root, "check", "--resume", "--json"]) == 0
    capsys.readouterr()
    for wrong in (["--level", "deep"], ["--sample", "half"], ["--sample", "0"]):
        assert run(["-R", root, "check", *wrong]) == 2
