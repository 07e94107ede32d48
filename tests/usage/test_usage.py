"""What is said of a repository's bytes, held against the files themselves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import stemmata
from faults import Damage, damage
from makers import safetensors_bytes
from stemmata.errors import ModelNotFound
from stemmata.log.ops import PackAdd, VersionDelete, VersionForget
from stemmata.packs import PackWriter
from stemmata.records import Run
from stemmata.repository import Repository
from stemmata.usage import Part, Usage
from stemmata.usage.measure import _spans

COUNT = 40_000
RAW = 4 * COUNT


def tensor(seed: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).normal(0, 0.02, COUNT).astype(np.float32)


A, B, C = tensor(1), tensor(2), tensor(3)
NEAR_A = A + np.float32(1e-5) * B


def save(
    repo: Repository, folder: Path, name: str, model: str = "m", run: str = "r", **tensors: object
) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))  # type: ignore[arg-type]
    repo.save(folder, model, name=name, run=Run(f"{model}-{run}", run), provenance={"env": b"{}"})


@pytest.fixture
def repo(tmp_path: Path):  # type: ignore[no-untyped-def]
    with stemmata.open(tmp_path / "repo", create=True) as repo:
        save(repo, tmp_path / "out", "one", x=A, y=B)
        save(repo, tmp_path / "out", "two", x=NEAR_A, y=B)
        save(repo, tmp_path / "out", "three", model="other", run="s", y=B, z=C)
        yield repo


def part(parts: tuple[Part, ...], model: str) -> Part:
    return next(each for each in parts if each.model == model)


def test_what_was_saved_and_what_is_stored_make_up_the_files(repo: Repository) -> None:
    found = repo.stats()
    assert found.versions == 3
    assert found.files == sum(version.size for version in repo.versions())
    took = found.saved_by_dedup + found.saved_by_deltas + found.saved_by_casts + found.saved_by_compression
    assert took + found.stored - found.beside == found.files
    # y is there three times and stored once; so is the header of the first two.
    assert 2 * RAW <= found.saved_by_dedup < 2 * RAW + 500
    assert found.saved_by_deltas > RAW / 3
    assert found.saved_by_casts == 0
    assert sum(kept.raw for kept in found.codecs) == found.distinct
    assert {kept.codec for kept in found.codecs} >= {"planes", "delta"}
    assert found.unneeded == 0
    assert found.unread == ()


def test_it_agrees_with_the_packs_on_disk(repo: Repository) -> None:
    found = repo.stats()
    root = Path(repo.where)
    packs = [path.stat().st_size for path in (root / "packs").rglob("*.pack")]
    assert found.packs == len(packs) == 3
    assert found.places.packs == sum(packs)
    # The rest are magic words, indexes and footers.
    assert 0 < sum(packs) - found.stored < 4000
    assert found.places.log == sum(path.stat().st_size for path in (root / "log").iterdir())
    assert found.places.catalog >= (repo.session.catalog.file or root).stat().st_size > 0


def test_a_part_owns_what_nothing_else_holds(repo: Repository) -> None:
    found = repo.stats()
    mine, other = part(found.models, "m"), part(found.models, "other")
    assert (mine.versions, other.versions) == (2, 1)
    # Both need y, neither owns it.
    shared = mine.needed + other.needed - found.stored
    assert 0.8 * RAW < shared < RAW
    assert mine.needed - mine.own == other.needed - other.own == shared
    assert [(run.model, run.run) for run in found.runs] == [("m", "r"), ("other", "s")]
    own = {version.name: version.own for version in found.largest}
    assert own["one"] > 0.8 * RAW
    assert own["three"] > 0.8 * RAW
    assert own["two"] < 0.7 * RAW


def test_one_model_alone(repo: Repository) -> None:
    whole, alone = repo.stats(), repo.stats("M")
    assert alone.model == "m"
    assert alone.models == (part(whole.models, "m"),)
    assert alone.stored == alone.models[0].needed
    assert alone.files == alone.models[0].files
    assert {version.name for version in alone.largest} == {"one", "two"}
    with pytest.raises(ModelNotFound):
        repo.stats("nothing")


def test_i8_what_is_kept_for_the_next_time_changes_nothing(repo: Repository) -> None:
    first = repo.stats()
    connection = repo.session.catalog.connection
    assert connection.execute("SELECT COUNT(*) FROM pack_contents").fetchone() == (3,)
    assert connection.execute("SELECT COUNT(*) FROM version_contents").fetchone() == (3,)
    assert _without_places(repo.stats()) == _without_places(first)
    repo.annotate("m@one", metrics={"x": 1})
    repo.session.catalog.keep_hints(("UPDATE pack_contents SET objects = x'00'", [()]))
    assert _without_places(repo.stats()) == _without_places(first)


def test_the_second_time_no_pack_is_read(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.stats()

    get = repo.session.storage.get

    def refuse(key: str, start: int = 0, length: int | None = None) -> bytes:
        assert not key.startswith("packs/"), "a pack was read"
        return get(key, start, length)

    monkeypatch.setattr(repo.session.storage, "get", refuse)
    repo.session._trees.clear()
    assert repo.stats().versions == 3


def test_progress_ends_at_its_total(repo: Repository) -> None:
    told: list[tuple[int, int]] = []
    repo.stats(progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (9, 9)
    assert [done for done, _ in told] == list(range(1, 10))


def test_deleted_versions_count_until_they_are_forgotten(repo: Repository) -> None:
    version = repo["m@two"].id.hex
    repo.session.commit(lambda _: [VersionDelete(version=version)])
    found = repo.stats()
    assert (found.versions, found.restorable) == (3, 1)


def test_what_no_version_needs_is_told(repo: Repository) -> None:
    from stemmata.codecs.dtypes import BYTES
    from stemmata.codecs.objectcode import encode_object
    from stemmata.ids import Digest

    content = os.urandom(5000)
    writer = PackWriter(repo.session.storage)
    encoded = encode_object(content, BYTES)
    writer.add(Digest.of(content), [encoded], len(content))
    pack = writer.commit()
    repo.session.commit(lambda _: [PackAdd(pack=pack.name.hex, size=pack.size, digest=pack.digest.hex)])
    found = repo.stats()
    assert found.unneeded == len(encoded)
    assert found.packs == 4


def test_what_a_needed_object_leans_on_is_needed(repo: Repository) -> None:
    version = repo["m@one"].id.hex
    repo.session.commit(lambda _: [VersionDelete(version=version), VersionForget(versions=[version])])
    found = repo.stats()
    assert found.versions == 2
    # Its tree and header alone: what is left of it leans on its tensor.
    assert 0 < found.unneeded < 2000


def test_i4_a_damaged_pack_is_named_and_the_rest_is_told(repo: Repository) -> None:
    (pack,) = repo.session.packs(repo.session.row(repo["other@three"].id))[:1]
    damage(repo.session.storage, pack.key, Damage.CUT, 50)
    with stemmata.open(repo.where) as again:
        found = again.stats()
    assert f"pack {pack}" in found.unread
    assert found.stored < repo.stats("m").stored + RAW


def test_an_empty_repository() -> None:
    found = Repository.in_memory().stats()
    assert isinstance(found, Usage)
    assert (found.versions, found.stored, found.growth, found.largest) == (0, 0, (), ())


@pytest.mark.parametrize(
    ("days", "ends"),
    [
        (["2026-03-01", "2026-03-01", "2026-03-04"], ["2026-03-01", "2026-03-04"]),
        ([f"2026-03-{day:02d}" for day in range(1, 22)],
         [f"2026-03-{day:02d}" for day in (1, 8, 15, 22)]),
        ([f"20{year}-{month:02d}-03" for year in (24, 25) for month in range(1, 13)],
         [f"{year}-{day}" for year in (2024, 2025) for day in ("03-31", "06-30", "09-30", "12-31")]),
        ([f"20{year}-02-03" for year in range(10, 26)], ["9999-12-31"]),
    ],
)  # fmt: skip
def test_growth_is_told_by_spans_that_fit(days: list[str], ends: list[str]) -> None:
    found = _spans([(f"{day}T10:00:00.000000Z", 10, 4) for day in days])
    assert [span.until for span in found] == ends
    assert (found[-1].versions, found[-1].files, found[-1].stored) == (
        len(days),
        10 * len(days),
        4 * len(days),
    )


def _without_places(found: Usage) -> dict[str, object]:
    return {key: value for key, value in found.to_dict().items() if key != "places"}
