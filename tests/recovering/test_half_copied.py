"""A repository of which a part was copied: what is there reads, and nothing is built on what is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import stemmata
from makers import contents, model_folder, safetensors_bytes, weights
from stemmata.checking import check
from stemmata.cli.main import run
from stemmata.errors import DamagedLog, DamagedRepository, MissingPack, RepositoryExists, StorageReadOnly
from stemmata.log.entries import log_key
from stemmata.recovering import recover
from stemmata.storage.local import LocalStorage


def tuned(folder: Path, step: int) -> Path:
    """The same network a little further: it is kept as a delta."""
    start = weights(1, width=64)
    rng = np.random.default_rng(step)
    moved = {k: v + (rng.normal(size=v.shape) * 1e-4 * step).astype(np.float32) for k, v in start.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(f'{{"step": {step}}}')
    (folder / "model.safetensors").write_bytes(safetensors_bytes(moved))
    return folder


class World:
    """A repository of three versions, the last two kept as deltas, and a place for its copy."""

    def __init__(self, root: Path) -> None:
        self.root, self.original, self.copy = root, root / "original", root / "copy"
        self.packs: list[Path] = []
        with stemmata.open(self.original, create=True) as repo:
            for step in range(3):
                before = set(self.original.rglob("*.pack"))
                parents = [repo["m@latest"]] if step else []
                repo.save(tuned(root / "out", step), "m", name=f"s{step}", parents=parents, provenance={})
                self.packs += [
                    p.relative_to(self.original) for p in set(self.original.rglob("*.pack")) - before
                ]
        assert len(self.packs) == 3

    def half(self, *left_out: str | Path, cache: bool = False) -> Path:
        """A copy without these."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.original, self.copy, ignore=None if cache else shutil.ignore_patterns("cache"))
        for each in left_out:
            (self.copy / each).unlink()
        return self.copy

    def readable(self, step: int) -> bool:
        with stemmata.open(self.copy) as repo:
            try:
                return bool(repo[f"m@s{step}"].read("model.safetensors") == self.saved(step))
            except MissingPack:
                return False

    def saved(self, step: int) -> bytes:
        return contents(tuned(self.root / "again", step))["model.safetensors"]

    def whole(self) -> list[str]:
        """The versions that a check of the copy does not name."""
        with stemmata.open(self.copy) as repo:
            affected = {v.name for v in repo.check().affected}
            return [v.name for v in reversed(list(repo.versions("m"))) if v.name not in affected]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("half"))


@pytest.fixture
def world(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user"))
    return made


def test_deltas_are_what_this_is_about(world: World) -> None:
    with stemmata.open(world.original) as repo:
        rows = repo.session.catalog.connection.execute("SELECT COUNT(*) FROM pack_bases").fetchone()
    assert rows[0] >= 2


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(("missing", "whole"), [(2, ["s0", "s1"]), (1, ["s0"]), (0, [])])
def test_a_missing_pack_takes_what_needs_it_and_no_more(
    world: World, missing: int, whole: list[str], cache: bool
) -> None:
    world.half(world.packs[missing], cache=cache)
    readable = [f"s{step}" for step in range(3) if world.readable(step)]
    assert world.whole() == readable
    assert set(whole) <= set(readable)
    assert f"s{missing}" not in readable


@pytest.mark.parametrize("how", ["gone", "cut", "empty"])
@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_save_does_not_build_on_what_is_missing(world: World, missing: int, cache: bool, how: str) -> None:
    """Its tensors lie in a pack that is there, as deltas on one that is not."""
    world.half(cache=cache)
    pack = world.copy / world.packs[missing]
    data = pack.read_bytes()
    pack.unlink()
    if how != "gone":
        pack.write_bytes(data[: len(data) // 2 if how == "cut" else 0])
    with stemmata.open(world.copy) as repo:
        for step in range(3):
            repo.save(tuned(world.root / "again", step), "new", name=f"s{step}", provenance={})
        for step in range(3):
            assert repo[f"new@s{step}"].read("model.safetensors") == world.saved(step)
        affected = {(v.model, v.name) for v in repo.check().affected}
    assert ("m", f"s{missing}") in affected
    assert not [name for model, name in affected if model == "new"]


def test_a_pack_that_goes_while_the_repository_is_open_is_not_built_on(world: World) -> None:
    world.half()
    with stemmata.open(world.copy) as repo:
        repo.save(tuned(world.root / "again", 2), "m", name="again", provenance={})
        (world.copy / world.packs[0]).unlink()
        repo.save(tuned(world.root / "again", 2), "new", name="s2", provenance={})
        assert repo["new@s2"].read("model.safetensors") == world.saved(2)


def test_a_version_whose_bytes_are_lost_is_saved_anew_and_not_only_named(world: World) -> None:
    world.half(world.packs[0])
    with stemmata.open(world.copy) as repo:
        again = repo.save(
            tuned(world.root / "again", 2), "m", name="again", provenance={}, same_as_existing=True
        )
        assert again.id != repo["m@s2"].id
        assert again.read("model.safetensors") == world.saved(2)
        once_more = repo.save(
            tuned(world.root / "again", 2), "m", name="more", provenance={}, same_as_existing=True
        )
        assert once_more.id == again.id


def test_a_collection_takes_nothing_away_where_packs_are_missing(world: World) -> None:
    world.half(world.packs[1])
    before = set(world.copy.rglob("*.pack"))
    with stemmata.open(world.copy) as repo:
        repo.delete("m@s2")
        try:
            repo.gc(undo_window=0, grace=0)
        except MissingPack:
            pass
        assert repo["m@s0"].read("model.safetensors") == world.saved(0)
    assert before <= set(world.copy.rglob("*.pack"))


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_hole_in_the_log_is_refused_whoever_comes(world: World, missing: int, cache: bool) -> None:
    world.half(log_key(missing), cache=cache)
    for _ in range(2):
        with pytest.raises(DamagedLog, match=r"missing.*check --repair"):
            stemmata.open(world.copy)
    assert not (world.copy / log_key(missing)).exists()
    report = recover(LocalStorage(world.copy), sources=[LocalStorage(world.original)])
    assert report.complete
    assert [world.readable(step) for step in range(3)] == [True] * 3


def test_a_copied_catalog_gives_back_what_the_copied_log_lacks(world: World) -> None:
    world.half(log_key(1), log_key(2), cache=True)
    assert recover(LocalStorage(world.copy)).complete
    assert [world.readable(step) for step in range(3)] == [True] * 3


@pytest.mark.parametrize("cache", [False, True])
def test_without_its_identity_a_copy_is_no_repository_and_no_place_for_a_new_one(
    world: World, cache: bool
) -> None:
    world.half("stemmata.json", cache=cache)
    with pytest.raises(DamagedRepository, match=r"check --repair"):
        stemmata.open(world.copy)
    with pytest.raises(RepositoryExists, match=r"check --repair"):
        stemmata.init(world.copy)
    assert run(["-R", str(world.copy), "save", str(model_folder(world.root / "x")), "m"]) == 5
    report = recover(LocalStorage(world.copy))
    # The catalog knows it; without one, another copy has to.
    assert report.complete == cache
    assert recover(LocalStorage(world.copy), sources=[LocalStorage(world.original)]).complete
    assert (world.copy / "stemmata.json").read_bytes() == (world.original / "stemmata.json").read_bytes()
    assert [world.readable(step) for step in range(3)] == [True] * 3


@pytest.mark.parametrize("left", [0, 1])
def test_a_log_without_its_end_is_an_older_copy(world: World, left: int) -> None:
    """As sound as any backup: whoever copied it knows best. What a copied catalog saw is said."""
    world.half(*[log_key(n) for n in range(3, left, -1)], cache=True)
    report = recover(LocalStorage(world.copy))
    assert report.complete
    assert "entry 3" in report.notes[0]
    report = recover(LocalStorage(world.copy), sources=[LocalStorage(world.original)])
    assert [r.key for r in report.recovered] == [log_key(n) for n in range(left + 1, 4)]
    assert [world.readable(step) for step in range(3)] == [True] * 3


@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize("cache", [False, True])
def test_what_came_before_a_lost_entry_reads_and_is_not_written(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: bool, hole: bool
) -> None:
    world.half(*[log_key(2)] * hole, cache=cache)
    if not hole:
        (world.copy / log_key(2)).write_bytes(b"")
        shutil.rmtree(world.copy / "cache", ignore_errors=True)
    before = contents(world.copy)
    for _ in range(2):
        with stemmata.open(world.copy, up_to_damage=True) as repo:
            assert [v.name for v in repo.versions("m")] == ["s0"]
            assert repo["m@latest"].read("model.safetensors") == world.saved(0)
            assert repo.session.damage is not None
            for write in (
                lambda r=repo: r.save(model_folder(tmp_path / "x"), "m"),
                lambda r=repo: r.alias("m", "production", "m@s0"),
                lambda r=repo: r.gc(),
                lambda r=repo: r.delete("m@s0"),
            ):
                with pytest.raises((StorageReadOnly, DamagedLog)):
                    write()
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        words = ["-R", str(world.copy), "checkout", "m@latest", "-o", str(out)]
        assert run(words) == DamagedLog.exit_code
        assert "--up-to-damage" in capsys.readouterr().err
        assert run(["--up-to-damage", *words]) == 0
        assert "log entry 2 is damaged" in capsys.readouterr().err
        assert contents(out)["model.safetensors"] == world.saved(0)
    after = {k: v for k, v in contents(world.copy).items() if not k.startswith(("cache/", "tmp/"))}
    assert after == {k: v for k, v in before.items() if not k.startswith(("cache/", "tmp/"))}


def test_a_sound_repository_is_read_whole_up_to_damage(world: World) -> None:
    with stemmata.open(world.original, up_to_damage=True) as repo:
        assert len(list(repo.versions("m"))) == 3
        assert repo.session.damage is None
        with pytest.raises(StorageReadOnly):
            repo.alias("m", "production", "m@s0")


@pytest.mark.parametrize("gone", [False, True])
def test_what_this_machine_remembers_proves_the_last_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user"))
    with stemmata.open(tmp_path / "repo", create=True) as repo:
        repo.save(model_folder(tmp_path / "out"), "m", name="one")
    shutil.copytree(tmp_path / "repo", tmp_path / "copy")
    shutil.rmtree(tmp_path / "repo" / "cache")
    last = tmp_path / "repo" / log_key(1)
    last.unlink() if gone else last.write_bytes(b"")
    storage, copy = LocalStorage(tmp_path / "repo"), LocalStorage(tmp_path / "copy")
    assert recover(storage).complete == gone, "a log that has no entry is a new one, or a very old copy"
    assert recover(storage, sources=[copy]).complete
    assert last.read_bytes() == copy.get(log_key(1))
    # Without that memory a copy of the last entry is no proof.
    shutil.rmtree(tmp_path / "user")
    last.write_bytes(b"")
    assert not recover(storage, sources=[copy]).complete
    assert last.read_bytes() == b""


def test_a_log_that_is_gone_whole_comes_from_a_copy_and_no_pack_is_let_go(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with stemmata.open(whole, create=True) as repo:
        for seed in range(3):
            repo.save(model_folder(tmp_path / "out", seed), "m", name=f"v{seed}")
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "cache", ignore_errors=True)
    shutil.rmtree(cut / "log")
    report = check(LocalStorage(cut))
    assert [note.where for note in report.notes if note.kind == "log"] == ["log/"]
    with stemmata.open(cut) as repo:
        repo.gc(undo_window=0, grace=0)
    assert len(list((cut / "packs").rglob("*.pack"))) == 3
    assert recover(LocalStorage(cut), sources=[LocalStorage(whole)]).complete
    with stemmata.open(cut) as repo, stemmata.open(whole) as other:
        assert [v.id for v in repo.versions("m")] == [v.id for v in other.versions("m")]
        assert repo.check().sound


@pytest.mark.parametrize(
    ("how", "left"),
    [("gone", 1), ("gone", 2), ("hurt", 0), ("hurt", 1), ("another's", 2), ("end", 1), ("end", 2)],
)
def test_a_copy_that_goes_on_brings_all_at_once_whatever_else_is_damaged(
    world: World, tmp_path: Path, how: str, left: int
) -> None:
    """Which repository this is, and how its log ends, may be told by what is put right alone."""
    world.half(*[log_key(n) for n in range(3, left, -1)])
    identity = world.copy / "stemmata.json"
    if how == "gone":
        identity.unlink()
    elif how == "hurt":
        identity.write_bytes(b"#" * 9 + identity.read_bytes()[9:])
    elif how == "another's":
        stemmata.init(tmp_path / "other")
        shutil.copy(tmp_path / "other" / "stemmata.json", identity)
    else:
        last = world.copy / log_key(left)
        last.write_bytes(b"#" * 9 + last.read_bytes()[9:])
    storage, sources = LocalStorage(world.copy), [LocalStorage(world.original)]
    planned = recover(storage, sources=sources, dry_run=True)
    report = recover(storage, sources=sources)
    assert report.recovered == planned.recovered
    assert (report.complete, report.entries) == (True, 3)
    assert recover(storage, sources=sources).recovered == []
    assert [world.readable(step) for step in range(3)] == [True] * 3


def test_a_copy_that_goes_on_brings_what_is_newer_and_a_fork_brings_nothing(tmp_path: Path) -> None:
    here, newer, fork, older = (tmp_path / name for name in ("here", "newer", "fork", "older"))
    with stemmata.open(here, create=True) as repo:
        repo.save(model_folder(tmp_path / "out", 0), "m", name="v0")
    for place in (newer, fork, older):
        shutil.copytree(here, place)
    with stemmata.open(newer) as repo:
        repo.save(model_folder(tmp_path / "out", 1), "m", name="v1")
    with stemmata.open(here) as repo:
        repo.save(model_folder(tmp_path / "out", 2), "m", name="own")
    with stemmata.open(fork) as repo:
        repo.save(model_folder(tmp_path / "out", 3), "m", name="other")
        repo.save(model_folder(tmp_path / "out", 4), "m", name="another")
    assert recover(LocalStorage(older), sources=[LocalStorage(newer)]).recovered
    with stemmata.open(older) as repo:
        assert {v.name for v in repo.versions("m")} == {"v0", "v1"}
    before = sorted(path.name for path in (here / "log").iterdir())
    assert not recover(LocalStorage(here), sources=[LocalStorage(fork)]).recovered
    assert sorted(path.name for path in (here / "log").iterdir()) == before
