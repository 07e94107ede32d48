"""Versions coded against others, through the facade: what they lean on, how far, and what damage does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import faults
from chained import Tensors, as_bf16, model, opened, trained, written
from stemmata import saving
from stemmata.checking import check
from stemmata.codecs.dtypes import dtype_of
from stemmata.errors import Damage, DamagedObject, Refused
from stemmata.ids import Digest, PackName
from stemmata.log import ops
from stemmata.objects.choosing import WORK, chosen
from stemmata.objects.room import Room
from stemmata.packs import PackReader
from stemmata.recording import SaveRequest
from stemmata.repository import Repository
from stemmata.storage.memory import MemoryStorage
from stemmata.version import Version

SOURCE = Path(__file__).parents[2] / "src"
TESTS = Path(__file__).parents[1]


@pytest.fixture
def repo() -> Iterator[Repository]:
    with Repository.in_memory() as made:
        yield made


def save(repo: Repository, folder: Path, tensors: Tensors, name: str, parents: Sequence[str] = ()) -> Version:
    """`name` is MODEL@NAME."""
    written(folder, tensors)
    of_model, of_version = name.split("@")
    return repo.save(folder, of_model, name=of_version, parents=parents, provenance={})


def bases(repo: Repository, version: Version) -> dict[str, str | None]:
    """Digest of what each tensor leans on, if on anything."""
    lines = opened(repo, version)
    return {name: line[1][1].digest.hex if len(line) > 1 else None for name, line in lines.items()}


def objects(version: Version) -> dict[str, str]:
    return {s.name: s.objects[0] for f in version.files for s in f.segments if s.name is not None}


def stored(repo: Repository) -> int:
    return sum(key.size for key in repo.session.storage.list("packs/"))


def log_of(repo: Repository) -> list[dict[str, object]]:
    storage = repo.session.storage
    keys = sorted(key.key for key in storage.list("log/"))
    return [op for key in keys for op in json.loads(storage.get(key)[:-66])["ops"]]


# --- what is leaned on ------------------------------------------------------------------------------------


def test_a_version_leans_on_its_parent_tensor_by_tensor(repo: Repository, tmp_path: Path) -> None:
    first = save(repo, tmp_path / "out", model(), "m@one")
    before = stored(repo)
    data = written(tmp_path / "out", later := trained(model(), 1))
    second = save(repo, tmp_path / "out", later, "m@two", ["m@one"])
    assert bases(repo, second) == objects(first)
    assert set(bases(repo, first).values()) == {None}
    assert stored(repo) - before < 0.65 * before
    assert second.read("model.safetensors") == data


def test_a_tensor_that_was_renamed_is_found_by_its_shape_and_place(repo: Repository, tmp_path: Path) -> None:
    first = save(repo, tmp_path / "out", model(), "m@one")
    renamed = {f"encoder.{name}": array for name, array in trained(model(), 1).items()}
    second = save(repo, tmp_path / "out", renamed, "m@two", ["m@one"])
    assert bases(repo, second) == {f"encoder.{name}": digest for name, digest in objects(first).items()}


@pytest.mark.parametrize("parents", [None, ["m@0"]])
@pytest.mark.parametrize("shape", ["list", "optimizer"])
def test_tensors_without_a_name_lean_on_those_at_their_place(
    repo: Repository, tmp_path: Path, shape: str, parents: list[str] | None
) -> None:
    """As a list holds them, or an optimizer under numbers."""
    generator = torch.Generator().manual_seed(3)
    old = [torch.randn(80, 100, generator=generator) for _ in range(3)]
    sizes = [0]
    for number in range(2):
        tensors = [t + number * 1e-6 * torch.randn(80, 100, generator=generator) for t in old]
        states = {n: {"step": torch.tensor(1.0), "exp_avg": t} for n, t in enumerate(tensors)}
        torch.save(tensors if shape == "list" else {"state": states}, tmp_path / "optimizer.pt")
        data = (tmp_path / "optimizer.pt").read_bytes()
        of = parents if number else None
        version = repo.save(tmp_path / "optimizer.pt", "m", name=str(number), parents=of, provenance={})
        assert version.read("optimizer.pt") == data
        sizes.append(stored(repo))
    assert sizes[2] - sizes[1] < 0.4 * sizes[1]


def test_without_parents_the_models_other_versions_are_looked_at(repo: Repository, tmp_path: Path) -> None:
    first = save(repo, tmp_path / "out", model(), "m@one")
    save(repo, tmp_path / "out", model(9), "m@unlike")
    second = save(repo, tmp_path / "out", trained(model(), 1), "m@two")
    assert bases(repo, second) == objects(first)


def test_a_fine_tune_of_something_stored_finds_it_in_another_model(repo: Repository, tmp_path: Path) -> None:
    first = save(repo, tmp_path / "out", model(), "base@one")
    save(repo, tmp_path / "out", model(9), "unlike@one")
    second = save(repo, tmp_path / "out", trained(model(), 1), "mine@one")
    assert bases(repo, second) == objects(first)


def test_where_a_parent_has_no_counterpart_its_parents_and_the_models_versions_are_looked_at(
    repo: Repository, tmp_path: Path
) -> None:
    first = save(repo, tmp_path / "out", model(), "m@full")
    save(repo, tmp_path / "out", as_bf16(model()), "m@half", ["m@full"])  # type: ignore[arg-type]
    save(repo, tmp_path / "out", {"w": np.ones((99, 99), np.float32)}, "x@other-architecture")
    again = save(repo, tmp_path / "out", trained(model(), 1), "m@full-again", ["m@half"])
    assert bases(repo, again) == objects(first)
    # Of its parents none has anything like it; what is nearest in the model has.
    later = save(repo, tmp_path / "out", trained(model(), 2), "m@later", ["x@other-architecture"])
    assert set(bases(repo, later).values()) <= {*objects(first).values(), *objects(again).values()}
    # One that is too small is not worth the look.
    small = {"head": model()["head"][:8]}
    save(repo, tmp_path / "out", small, "m@small", [])
    tiny = {"head": trained(small, 3)["head"]}
    assert bases(repo, save(repo, tmp_path / "out", tiny, "m@tiny", ["x@other-architecture"])) == {
        "head": None
    }


def test_a_parent_whose_packs_are_damaged_is_no_base(tmp_path: Path) -> None:
    with Repository.in_memory() as repo:
        first = save(repo, tmp_path / "out", model(), "m@one")
        (pack,) = repo.session.packs(first._row)
        kept = faults.contents(repo.session.storage)
    data = bytearray(kept[pack.key])
    data[-100] ^= 1  # its index
    with Repository(faults.memory_of({**kept, pack.key: bytes(data)}), author="t@t") as repo:
        content = written(tmp_path / "out", trained(model(), 1))
        second = save(repo, tmp_path / "out", trained(model(), 1), "m@two", [first.id.hex])
        assert set(bases(repo, second).values()) == {None}
        assert second.read("model.safetensors") == content


def test_of_many_candidates_two_are_in_memory(repo: Repository, tmp_path: Path) -> None:
    parents = []
    for number in range(6):
        save(repo, tmp_path / "out", trained(model(), number, 1e-3), f"{number}@one", [])
        parents.append(
            (
                Digest.parse(objects(repo[f"{number}@one"])["head"]),
                repo.session.packs(repo[f"{number}@one"]._row),
            )
        )
    lent, most = 0, 0

    class Counting(Room):
        def lend(self, size: int) -> memoryview:
            nonlocal lent, most
            lent += 1
            most = max(most, lent)
            return super().lend(size)

        def give_back(self, view: memoryview) -> None:
            nonlocal lent
            lent -= 1
            super().give_back(view)

    buffers = Counting()
    data = memoryview(trained(trained(model(), 5, 1e-3), 9)["head"].tobytes())
    with chosen(data, dtype_of("F32"), parents, repo.session.reader, buffers) as found:
        assert found.base is not None
        assert found.base.reference.digest == parents[5][0]
        assert lent <= 2  # the best and what it leans on
        assert most <= 4  # each of them and what it leans on
    assert lent == 0


def test_what_resembles_nothing_leans_on_nothing(repo: Repository, tmp_path: Path) -> None:
    save(repo, tmp_path / "out", model(), "m@one")
    second = save(repo, tmp_path / "out", model(1), "m@two", ["m@one"])
    assert set(bases(repo, second).values()) == {None}
    assert not any(op.get("bases") for op in log_of(repo))


def test_the_same_weights_in_half_precision_are_references(repo: Repository, tmp_path: Path) -> None:
    first = save(repo, tmp_path / "out", model(), "m@one")
    before = stored(repo)
    data = written(tmp_path / "out", as_bf16(model()))
    second = repo.save(tmp_path / "out", "half", name="one", provenance={})
    assert bases(repo, second) == objects(first)
    assert stored(repo) - before < 3000
    assert second.read("model.safetensors") == data


@pytest.mark.parametrize("half", [False, True])
def test_reading_decodes_at_most_four_times_its_bytes(repo: Repository, tmp_path: Path, half: bool) -> None:
    """Eight epochs, each the child of the one before; or all but the first in half precision."""
    tensors, parents, saved = model(), list[str](), {}
    for epoch in range(9):
        tensors = trained(tensors, epoch)
        data = written(tmp_path / "out", as_bf16(tensors) if half and epoch else tensors)
        name = f"e{epoch}"
        version = repo.save(tmp_path / "out", "m", name=name, parents=parents, provenance={})
        parents, saved[name] = [f"m@{name}"], data
        for line in opened(repo, version).values():
            decoder = line[0][1]
            assert decoder.work <= WORK * decoder.header.raw_length
            assert (epoch == 0) == (len(line) == 1)
    for name, data in saved.items():
        assert repo[f"m@{name}"].read("model.safetensors") == data
    if not half:
        assert stored(repo) < 0.6 * sum(map(len, saved.values()))
    assert check(repo.session.storage).sound


@pytest.mark.parametrize(("steps", "shallow"), [(4, True), (300, False)])
def test_a_longer_chain_has_to_pay(repo: Repository, tmp_path: Path, steps: int, shallow: bool) -> None:
    """What a parent leans on is leaned on itself, where the parent makes little of a difference."""
    first = model()
    second = trained(first, 1, 1e-5 * steps)
    root = save(repo, tmp_path / "out", first, "m@one")
    parent = save(repo, tmp_path / "out", second, "m@two", ["m@one"])
    assert bases(repo, parent) == objects(root)
    child = save(repo, tmp_path / "out", trained(second, 2), "m@three", ["m@two"])
    assert bases(repo, child) == objects(root if shallow else parent)


# --- packs that others lean on ------------------------------------------------------------------------------


def test_pack_add_names_the_packs_that_are_leaned_on(repo: Repository, tmp_path: Path) -> None:
    versions = [save(repo, tmp_path / "out", model(), "m@0")]
    for epoch in (1, 2):
        tensors = trained(model(), epoch)
        versions.append(save(repo, tmp_path / "out", tensors, f"m@{epoch}", [f"m@{epoch - 1}"]))
    adds = {op["pack"]: op for op in log_of(repo) if op["op"] == "pack.add"}
    for version in versions:
        lines = opened(repo, version).values()
        (own,) = {line[0][0].pack.hex for line in lines}
        assert adds[own].get("bases", []) == sorted({line[1][0].pack.hex for line in lines if len(line) > 1})


def test_i7_a_pack_that_others_lean_on_is_not_retired(repo: Repository, tmp_path: Path) -> None:
    first = save(repo, tmp_path / "out", model(), "m@one")
    # Renamed, so that not even the file's header is shared: it leans on the pack and needs nothing in it.
    later = {f"encoder.{name}": array for name, array in trained(model(), 1).items()}
    data = written(tmp_path / "out", later)
    second = save(repo, tmp_path / "out", later, "m@two", ["m@one"])
    session = repo.session
    old, new = ([pack.hex for pack in session.packs(v._row)] for v in (first, second))
    assert not set(old) & set(new)
    retire = ops.PackRetire(packs=old)
    session.commit(lambda _: [ops.VersionDelete(version=first.id.hex)])
    session.commit(lambda _: [ops.VersionForget(versions=[first.id.hex])])
    with pytest.raises(Refused, match="needed"):
        session.commit(lambda _: [retire])
    assert second.read("model.safetensors") == data
    assert check(session.storage).sound
    session.commit(lambda _: [ops.VersionDelete(version=second.id.hex)])
    with pytest.raises(Refused, match="needed"):
        session.commit(lambda _: [retire])  # what is deleted can be restored
    forget = ops.VersionForget(versions=[second.id.hex])
    session.commit(lambda _: [forget, ops.PackRetire(packs=[*old, *new])])


def test_i7_a_save_whose_base_is_collected_meanwhile_is_coded_anew(tmp_path: Path) -> None:
    """The base is chosen, the pack written; then another process deletes and retires what it leans on."""
    with Repository.in_memory() as repo:
        first = save(repo, tmp_path / "out", model(), "m@one")
        session = repo.session
        packs = session.packs(first._row)
        data = written(tmp_path / "out", trained(model(), 1))
        done: list[int] = []

        def collect(size: int) -> None:
            if not done:
                session.commit(lambda _: [ops.VersionDelete(version=first.id.hex)])
                gone = ops.PackRetire(packs=[p.hex for p in packs])
                session.commit(lambda _: [ops.VersionForget(versions=[first.id.hex]), gone])
            done.append(size)

        request = SaveRequest(tmp_path / "out", "m", "two", parents=[first.id], progress=collect)
        version = saving.save(session, request).version
        assert sum(done) == 2 * len(data)
        for pack in packs:
            session.storage.delete(pack.key)
    with Repository(session.storage, author="t@t") as repo:
        assert repo["m@two"].id == version
        assert repo["m@two"].read("model.safetensors") == data
        assert set(bases(repo, repo["m@two"]).values()) == {None}


class Counting(MemoryStorage):
    """Counts the bytes that are read of packs."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        data = super().get(key, start, length)
        self.taken += len(data) if key.startswith("packs/") else 0
        return data


def test_of_a_pack_only_the_bases_are_read(tmp_path: Path) -> None:
    from stemmata.log.identity import create_identity

    storage = Counting()
    create_identity(storage)
    with Repository(storage, author="t@t") as repo:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "other.bin").write_bytes(np.random.default_rng(0).bytes(8 << 20))
        save(repo, tmp_path / "out", model(), "m@one")
        (tmp_path / "out" / "other.bin").unlink()
        save(repo, tmp_path / "out", trained(model(), 1), "m@two", ["m@one"])
    with Repository(storage, author="t@t") as repo:
        storage.taken = 0
        repo["m@two"].read("model.safetensors")
        assert storage.taken < 1 << 20


# --- damage ---------------------------------------------------------------------------------------------


def flipped(storage: MemoryStorage, pack: PackName, digest: Digest) -> MemoryStorage:
    """A copy in which one byte in the middle of a stored object is another."""
    row = PackReader(storage, pack).index.find(digest)
    assert row is not None
    kept = faults.contents(storage)
    data = bytearray(kept[pack.key])
    data[row.offset + row.stored // 2] ^= 1
    return faults.memory_of({**kept, pack.key: bytes(data)})


def test_i4_damage_of_a_base_is_told_of_the_base_and_spreads_no_further(tmp_path: Path) -> None:
    with Repository.in_memory() as repo:
        save(repo, tmp_path / "out", model(), "m@one")
        leaning = save(repo, tmp_path / "out", trained(model(), 1), "m@two", ["m@one"])
        other = written(tmp_path / "out", model(5))
        save(repo, tmp_path / "out", model(5), "m@other", [])
        base = opened(repo, leaning)["head"][1][0]
        storage = flipped(repo.session.storage, base.pack, base.digest)  # type: ignore[arg-type]
    with Repository(storage, author="t@t") as repo:
        for name in ("one", "two"):
            with pytest.raises(DamagedObject) as caught:
                repo[f"m@{name}"].read("model.safetensors")
            told = [str(caught.value.data[key]) for key in ("digest", "pack")]
            assert told == [base.digest.hex, base.pack.hex]
            with pytest.raises(Damage):
                repo[f"m@{name}"].checkout(tmp_path / name)
            assert not (tmp_path / name).exists()
        assert repo["m@other"].read("model.safetensors") == other
        later = trained(trained(model(), 1), 2)
        data = written(tmp_path / "out", later)
        third = save(repo, tmp_path / "out", later, "m@three", ["m@two"])
        for name, line in opened(repo, third).items():
            assert base.digest not in [decoder.digest for _, decoder in line]
            assert (len(line) > 1) == (name != "head")
        assert third.read("model.safetensors") == data
        report = check(storage)
        assert not report.sound
        named = {version for problem in report.problems for version in problem.versions}
        assert named == {repo["m@one"].id.hex, repo["m@two"].id.hex}


def test_i4_a_base_pack_that_is_gone_is_told(tmp_path: Path) -> None:
    with Repository.in_memory() as repo:
        save(repo, tmp_path / "out", model(), "m@one")
        leaning = save(repo, tmp_path / "out", trained(model(), 1), "m@two", ["m@one"])
        base = opened(repo, leaning)["head"][1][0].pack
        kept = faults.contents(repo.session.storage)
    del kept[base.key]
    with Repository(faults.memory_of(kept), author="t@t") as repo:
        with pytest.raises(Damage, match=base.hex):
            repo["m@two"].read("model.safetensors")
        save(repo, tmp_path / "out", trained(model(), 2), "m@three", ["m@two"])
        assert set(bases(repo, repo["m@three"]).values()) == {None}


def test_i4_a_check_finds_any_flipped_byte_of_bases_and_deltas(tmp_path: Path) -> None:
    with Repository.in_memory() as repo:
        save(repo, tmp_path / "out", model(), "m@one")
        save(repo, tmp_path / "out", trained(model(), 1), "m@two", ["m@one"])
        written(tmp_path / "out", as_bf16(model()))
        repo.save(tmp_path / "out", "half", name="one", provenance={})
        kept = faults.contents(repo.session.storage)
    rng = np.random.default_rng(1)
    packs = sorted(key for key in kept if key.startswith("packs/"))
    assert len(packs) == 3
    for level, times in (("stored", 20), ("full", 8)):
        for key in packs:
            for at in rng.integers(0, len(kept[key]), times).tolist():
                bad = faults.damaged(kept[key], faults.Damage.FLIP, at)
                assert bad is not None
                report = check(faults.memory_of({**kept, key: bad}), level=level)
                assert not report.sound, (key, at, level)
                assert any(key in problem.where for problem in report.problems)


# --- the same bytes everywhere --------------------------------------------------------------------------


CHILD = """
import hashlib, itertools, sys, tempfile
from pathlib import Path
import numpy as np
from golden.make_v1 import safetensors
from stemmata import saving
from stemmata import ids
from stemmata.repository import Repository
from stemmata.recording import SaveRequest

numbers = itertools.count(1)
ids.PackName.fresh = classmethod(lambda cls: cls(next(numbers).to_bytes(16, "big")))
rng = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as work, Repository.in_memory() as repo:
    values = (rng.standard_normal(300_001) * 0.02).astype("<f4")
    parents = []
    for name in ("one", "two", "three"):
        bits = values.view("<u4").astype(np.uint64)
        half = (bits + 0x7FFF >> 16).astype("<u2")
        tensors = {"w": ("F32", [300_001], values.tobytes()), "h": ("BF16", [300_001], half.tobytes())}
        Path(work, "m.safetensors").write_bytes(safetensors(tensors))
        repo.save(Path(work, "m.safetensors"), "m", name=name, parents=parents, provenance={})
        parents = [f"m@{name}"]
        values = (values + rng.standard_normal(300_001) * 1e-5).astype("<f4")
    storage = repo.session.storage
    for key in sorted(k.key for k in storage.list("packs/")):
        print(key, hashlib.sha256(storage.get(key)).hexdigest())
"""


def test_neither_threads_nor_the_compiler_change_a_byte() -> None:
    told = set()
    for variables in ({"STEMMATA_THREADS": "1"}, {"STEMMATA_THREADS": "4"}, {"STEMMATA_NATIVE": "0"}):
        env = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{TESTS}", **variables}
        done = subprocess.run(
            [sys.executable, "-c", CHILD], env=env, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 3
        told.add(done.stdout)
    assert len(told) == 1
