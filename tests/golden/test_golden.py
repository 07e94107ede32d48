"""I9: every release opens and checks the golden repositories of all older formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from faults import contents
from golden.make_v1 import expected
from stemmata.checking import LEVELS, Level, check
from stemmata.codecs.dtypes import DTYPES
from stemmata.codecs.encoded import Whole
from stemmata.codecs.frames import PLANES, RAW, ZSTD, read_frames, read_header
from stemmata.errors import Redacted, VersionNotFound
from stemmata.ids import PackName
from stemmata.packs import PackReader
from stemmata.repository import Repository
from stemmata.storage.local import LocalStorage

GOLDEN = Path(__file__).parent / "v1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy: opening a repository makes a cache in it."""
    shutil.copytree(GOLDEN / "repository", tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture(scope="module")
def told() -> Any:
    return json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))


def as_told(repo: Repository, told: Any) -> Any:
    """What reading gives, without what later releases have learnt to tell beside it."""
    found = json.loads(json.dumps(expected(repo)))
    for version, known in zip(found["versions"], told["versions"], strict=True):
        for extra in version.keys() - known.keys():
            del version[extra]
    return found


@pytest.mark.parametrize("level", LEVELS)
def test_i9_it_is_sound(root: Path, told: Any, level: Level) -> None:
    report = check(LocalStorage(root), level=level)
    assert report.problems == []
    assert [note.kind for note in report.notes] == ["void"]
    assert report.counts.entries == told["entries"]
    assert report.counts.versions == len(told["versions"]) + 1
    assert report.counts.bundles == 1


@pytest.mark.parametrize("bundles", [True, False])
def test_i9_reading_gives_what_was_saved(root: Path, told: Any, bundles: bool) -> None:
    if not bundles:
        shutil.rmtree(root / "bundles")
    with Repository(LocalStorage(root)) as repo:
        assert as_told(repo, told) == told


def test_i9_a_second_opening_from_the_kept_catalog_gives_the_same(root: Path, told: Any) -> None:
    for _ in range(2):
        with Repository(LocalStorage(root)) as repo:
            assert as_told(repo, told) == told


def test_what_was_deleted_is_not_handed_out(root: Path, told: Any) -> None:
    with Repository(LocalStorage(root)) as repo:
        for reference in told["hidden"]:
            with pytest.raises(VersionNotFound, match="deleted"):
                repo[reference]
        with pytest.raises(Redacted):
            repo["Sentiment@v1.0"].provenance("command")


def test_the_past_is_as_it_was(root: Path, told: Any) -> None:
    with Repository(LocalStorage(root)) as repo:
        for _, to, at, *_ in told["history"]:
            assert repo.get("Sentiment@production", at=at).id.hex == to
        assert repo["sentiment@PRODUCTION@{1}"].id.hex == told["history"][-2][1]
        assert repo["TEAM/ОСНОВА"].name == "base"


def test_checkouts_are_byte_exact(root: Path, told: Any, tmp_path: Path) -> None:
    with Repository(LocalStorage(root)) as repo:
        version = repo["team/основа@base"]
        version.checkout(tmp_path / "out")
        for entry in version.files:
            path = tmp_path / "out" / entry.path
            assert path.read_bytes() == version.read(entry.path)
            assert bool(path.stat().st_mode & 0o100) == entry.executable
    assert (tmp_path / "out" / "пустая" / "空").is_dir()


def test_saving_into_it_goes_on_where_it_ended(root: Path, told: Any, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("new")
    with Repository(LocalStorage(root)) as repo:
        repo.save(tmp_path / "new.txt", "Sentiment", name="later", provenance={})
        assert repo.session.catalog.position.n == told["entries"] + 1
    assert check(LocalStorage(root)).sound


def test_reading_leaves_the_store_as_it_is(root: Path) -> None:
    with Repository(LocalStorage(root)) as repo:
        expected(repo)
    assert contents(LocalStorage(root)) == contents(LocalStorage(GOLDEN / "repository"))


def test_it_holds_every_op_codec_and_dtype_of_the_format(root: Path) -> None:
    storage = LocalStorage(root)
    seen: set[tuple[str, int]] = set()
    for key in storage.list("packs/"):
        pack = PackReader(storage, PackName.parse(key.key[-37:-5]))
        for digest in pack.index.digests():
            encoded = memoryview(pack.read(digest))
            header = read_header(encoded)
            for frame in read_frames(Whole(encoded), header):
                seen |= {("codec", frame.codec), ("dtype", frame.dtype.code)}
    assert seen >= {("codec", codec) for codec in (RAW, ZSTD, PLANES)}
    assert {code for what, code in seen if what == "dtype"} == {dtype.code for dtype in DTYPES}
    log = "".join(p.read_text(encoding="utf-8") for p in (root / "log").iterdir())
    for op in (
        *("pack.add", "pack.retire", "pack.drop", "version.add", "version.place", "version.delete"),
        *("version.restore", "version.forget", "version.annotate", "version.redact"),
        *("ref.set", "ref.delete", "model.configure"),
    ):
        assert f'"op":"{op}"' in log, op
