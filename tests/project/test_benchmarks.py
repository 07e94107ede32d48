"""The benchmarks' own ground: what is told of a history is true, and what does not hold is told."""

from __future__ import annotations

import argparse
import platform
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import benchmarks
import contents
import keeping
import madeup
import measuring
import patches
import products
import scale
import simulated
from corpus import history
from doc_blocks import ROOT
from figures import USUAL
from manifests import BRANCHES, RECIPES, Entry, Line, Shelf
from ours import Alone, Whole
from programs import Programs
from walking import AGAIN, OUT, Row, Walked, chosen, walk


def _line(name: str, *versions: str, fails: bool = False) -> Line:
    def train(shelf: Shelf) -> None:
        parents: tuple[str, ...] = ()
        for version in versions:
            text = f"{version} of {name}, " * 2000
            shelf.put(version, parents, "model", "text", lambda home, t=text: (home / "w").write_text(t))
            parents = (version,)
        if fails:
            raise KeyboardInterrupt

    return name, train


@pytest.fixture
def made(tmp_path: Path) -> list[Entry]:
    Shelf(tmp_path / "corpus" / "H").make([_line("one", "base", "epoch-1", "epoch-2")])
    return history("H", tmp_path / "corpus")


def test_a_history_that_was_interrupted_is_made_whole_and_what_is_complete_stays(tmp_path: Path) -> None:
    home = tmp_path / "H"
    with pytest.raises(KeyboardInterrupt):
        Shelf(home).make([_line("one", "base"), _line("two", "a", "b", fails=True)])
    with pytest.raises(SystemExit, match=r"corpus\.py H"):
        history("H", tmp_path)
    (home / "base" / "w").write_text("a training that is complete is not made again")
    Shelf(home).make([_line("one", "base"), _line("two", "a", "b")])
    found = history("H", tmp_path)
    assert [entry.name for entry in found] == ["base", "a", "b"]
    assert [entry.parents for entry in found] == [(), (), ("a",)]
    assert (home / "base" / "w").read_text().startswith("a training")
    assert found[2].bytes == (home / "b" / "w").stat().st_size


def test_a_machine_is_told_by_what_it_says_of_itself() -> None:
    cpu = "vendor_id\t: Abacus\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: Abacus 7\ncpu MHz\t\t: 2445.4\n"
    assert measuring.processor(cpu) == "Abacus 7 (family 25, model 1)"
    assert measuring.processor("") == platform.machine()
    assert measuring.disk("/dev/vda1").startswith("a virtual block device (vda)")
    assert measuring.disk("tmpfs") == "unknown"


def test_a_part_of_a_history_stands_alone(made: list[Entry]) -> None:
    part = chosen(made, "epoch-*")
    assert [(e.name, e.parents) for e in part] == [
        ("epoch-1", ()),
        ("epoch-2", ("epoch-1",)),
        (AGAIN, ("epoch-2",)),
    ]
    with pytest.raises(SystemExit, match="no version fits"):
        chosen(made, "step-*")


class Forgetful:
    """A tool that brings one version back with another byte."""

    title = "forgetful"

    def prepare(self, home: Path) -> None:
        self._home = home

    def stage(self, entry: Entry) -> None: ...

    def save(self, entry: Entry) -> None:
        (self._home / entry.name).write_bytes((entry.folder / "w").read_bytes())

    def restore(self, entry: Entry) -> Path:
        saved = (self._home / entry.name).read_bytes()
        (self._home / OUT).mkdir()
        (self._home / OUT / "w").write_bytes(saved[:-1] + b"!" if entry.name == "epoch-1" else saved)
        return self._home / OUT

    def store_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._home.iterdir() if path.is_file())

    def peak(self) -> int:
        return 0


class Copied(Forgetful):
    """A tool that says what it is, and forgets all the same."""

    how = "`copied`"

    def install(self) -> None: ...

    def version(self) -> str:
        return "1"

    def start(self) -> str:
        return "copied --version"

    def opened(self, entries: Sequence[Entry], work: Path) -> float | None:
        assert [entry.name for entry in entries] == ["base", "small"]
        return 0.25

    def stored(self, entries: Sequence[Entry]) -> dict[str, dict[str, Any]] | None:
        return {entry.name: {} for entry in entries}

    def spent(self, entries: Sequence[Entry], work: Path) -> dict[str, float] | None:
        return {"whole": 2.0} if entries[-1].name == "small" else None


def test_a_version_that_comes_back_with_other_bytes_is_told(made: list[Entry], tmp_path: Path) -> None:
    missed: list[str] = []
    walked = Walked.of("forgetful", [walk(Forgetful(), made, tmp_path / "work")], missed)
    assert missed == ["forgetful: epoch-1 came back with other bytes"]
    assert walked.total("kept") == walked.total("bytes") == sum(entry.bytes for entry in made[:-1])


def test_histories_are_walked_as_whole_processes_and_in_one(made: list[Entry], tmp_path: Path) -> None:
    options = ["--corpus", tmp_path / "corpus", "--work", tmp_path / "work", "--repeat", "1"]
    ran = subprocess.run(
        [sys.executable, ROOT / "bench" / "history.py", "H", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Every version came back byte for byte." in ran.stdout
    rows = [line.split(" | ") for line in ran.stdout.splitlines() if line.startswith("| epoch-2")]
    whole, within = rows
    assert float(whole[9]) > 10, "a process with Python in it has more than 10 MiB"
    assert len(within) == len(whole) - 2


def _benchmarks(work: Path, *options: str) -> str:
    ran = subprocess.run(
        [sys.executable, ROOT / "bench" / "benchmarks.py", "--work", work, "--histories", "H", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_benchmarks_go_on_where_they_stopped_and_write_a_page(tmp_path: Path) -> None:
    Shelf(tmp_path / "corpus" / "H").make([_line("one", "base", "epoch-1")])
    told = _benchmarks(tmp_path, "--only-tools", "cp", "--repeat", "2")
    assert "[2/2] H, cp -r, walk 2" in told
    page = tmp_path / "benchmarks" / "docs" / "benchmarks.md"
    assert "the mean of two walks" in page.read_text(), "a page of less than all does not go to docs/"
    (tmp_path / "benchmarks" / "walks" / "H-cp-1.json").unlink()
    told = _benchmarks(tmp_path, "--only-tools", "cp", "--repeat", "2")
    assert "[1/1] H, cp -r, walk 1" in told
    page.unlink()
    assert "walk" not in _benchmarks(tmp_path, "--only-tools", "cp", "--page").replace("/walk", "")
    assert "the mean of two walks" in page.read_text()


def test_a_walk_under_other_conditions_is_measured_again(made: list[Entry], tmp_path: Path) -> None:
    shelf, machine = keeping.Shelf(tmp_path / "walks"), {"processor": "abacus"}
    tool = Copied()
    now = keeping.conditions("copied", tool, "H", made, machine)
    walked = keeping.measure(tool, made, tmp_path / "work", 1)
    shelf.put(now, walked)
    assert shelf.get(now, 1) == walked
    assert (walked.method, walked.starting) == (keeping.METHOD, "copied --version")
    assert walked.aside == 0
    assert [version["parents"] for version in now.versions] == [[], ["base"], ["epoch-1"]]
    assert shelf.get(now, 2) is None
    for other in (
        {"version": "2"},
        {"machine": {"processor": "other"}},
        {"versions": []},
        {"sources": "changed"},
    ):
        assert shelf.get(replace(now, **other), 1) is None, other
    shelf.put(replace(now, version="2"), replace(walked, number=2, began="3020-01-01 00:00:00"))
    assert [(kept.version, w.number) for kept, w in shelf.newest(["H"], ["copied"])] == [("2", 2)]


def test_what_lies_beside_the_store_is_measured_when_a_walk_has_ended(
    made: list[Entry], tmp_path: Path
) -> None:
    class Caching(Copied):
        def prepare(self, home: Path) -> None:
            super().prepare(home)
            (home / "cache").mkdir()
            (home / "cache" / "some").write_bytes(bytes(1234))

    assert keeping.measure(Caching(), made, tmp_path / "work", 1).aside == 1234


def test_a_small_version_is_saved_once_more_in_a_process_that_is_open(
    made: list[Entry], tmp_path: Path
) -> None:
    assert keeping.measure(Copied(), made, tmp_path / "work", 1).opened is None, "none of them is small"
    small = replace(made[2], name="small", parents=("base",), bytes=made[0].bytes // 10)
    walked = keeping.measure(Copied(), [*made, small], tmp_path / "work", 1)
    assert walked.opened == 0.25
    assert walked.spent == {"small": {"whole": 2.0}}
    assert walked.stored == {entry.name: {} for entry in (*made, small)}


def test_products_of_bf16_are_those_of_fp32_rounded_backwards_too() -> None:
    torch.manual_seed(1)
    one, two = (torch.randn(32, 32).to(torch.bfloat16).requires_grad_() for _ in range(2))
    with products.InSingle():
        found = one @ two
        found.sum().backward()
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, (one.float() @ two.float()).to(torch.bfloat16))
    assert one.grad is not None
    assert torch.equal(one.grad, (torch.ones(32, 32) @ two.float().T).to(torch.bfloat16))


def test_a_branch_is_a_history_whose_first_version_has_no_parent(
    made: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BRANCHES, "part", ("H", "epoch-*"))
    told = {"rest": {"bytes": 3, "changed": 0.5}, "embeddings": {"bytes": 4, "moved": 0.25}, "loss": 0.75}
    monkeypatch.setattr(contents, "_parts", lambda entry, entries: dict(told))
    work = tmp_path / "corpus"
    first, second = history("part", work)
    assert (first.name, first.parents, first.changed) == ("epoch-1", (), None)
    assert (second.parents, second.changed) == (("epoch-1",), made[2].changed)
    assert contents.contents("part", work) == {
        "epoch-1": {"rest": {"bytes": 3}, "embeddings": {"bytes": 4}, "loss": 0.75},
        "epoch-2": told,
    }


def test_a_store_is_asked_which_version_leans_on_which(tmp_path: Path) -> None:
    torch.manual_seed(1)
    numbers = [torch.randn(300_000)]
    numbers.append(numbers[0] + 1e-4 * torch.randn(300_000))
    numbers.append(torch.where(torch.rand(300_000) < 0.01, numbers[1] * 1.001, numbers[1]))

    def put(shelf: Shelf) -> None:
        for at, one in enumerate(numbers):
            write = partial(save_file, {"weight": one, "same": torch.arange(2000.0)})
            parents = (f"v{at - 1}",) if at else ()
            shelf.put(f"v{at}", parents, "model", "", lambda home, w=write: w(home / "model.safetensors"))

    Shelf(tmp_path / "H").make([("line", put)])
    entries, tool = history("H", tmp_path), Whole()
    walk(tool, entries, tmp_path / "work")
    found = tool.stored(entries)
    assert found is not None
    first, second, third = (found[entry.name] for entry in entries)
    assert (list(first["bases"]), first["reads"], first["decodes"]) == ([""], [], 1.0)
    assert [one["bases"] for one in (second, third)] == [{"v0": 1_200_000}, {"v1": 1_200_000}]
    assert [one["reads"] for one in (second, third)] == [["v0"], ["v0", "v1"]]
    assert [one["same"] for one in (first, second, third)] == [0, 8000, 8000]
    assert [round(one["decodes"], 3) for one in (second, third)] == [1.993, 2.987]
    assert 0 < sum(second["kept"].values()) < sum(first["kept"].values())


def test_what_a_save_takes_its_time_for_is_told_apart_and_leaves_nothing(tmp_path: Path) -> None:
    Shelf(tmp_path / "tiny").make(madeup.HISTORIES["tiny"])
    found = Whole().spent(history("tiny", tmp_path)[:2], tmp_path / "work")
    assert found is not None
    assert set(found) == {"python", "load", "work", "disk"}
    assert found["python"] > 0
    assert sum(found.values()) > found["python"]
    assert not (tmp_path / "work").exists()


def test_what_changed_of_embeddings_is_told_apart_from_the_rest(tmp_path: Path) -> None:
    names = ["embeddings.word_embeddings.weight", "transformer.wte.weight", "encoder.layer.0.weight"]
    assert [contents.part_of(name) for name in names] == ["embeddings", "embeddings", "rest"]
    first = {names[0]: torch.ones(4, 8), names[2]: torch.ones(3)}
    second = {names[0]: first[names[0]].clone(), names[2]: torch.zeros(3)}
    second[names[0]][0] *= 1 + 2 * contents.MOVED
    second[names[0]][1] *= 1 + contents.MOVED / 10

    def put(shelf: Shelf) -> None:
        for name, parents, tensors in (("base", (), first), ("epoch-1", ("base",), second)):
            write = partial(save_file, tensors)
            shelf.put(name, parents, "model", "", lambda home, w=write: w(home / "model.safetensors"))

    Shelf(tmp_path / "H").make([("line", put)])
    told = contents.contents("H", tmp_path)
    assert told["base"] == {"embeddings": {"bytes": 128}, "rest": {"bytes": 12}}
    assert told["epoch-1"]["embeddings"] == {"bytes": 128, "changed": 0.5, "moved": 0.25}
    assert told["epoch-1"]["rest"] == {"bytes": 12, "changed": 1.0}
    (tmp_path / "H" / "base" / "model.safetensors").unlink()
    assert contents.contents("H", tmp_path) == told, "what was found is kept"


def test_parts_of_a_folder_are_told_by_the_names_of_files(tmp_path: Path) -> None:
    names = ("adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json", "adapter_config.json")
    for size, name in enumerate(names, 1):
        (tmp_path / name).write_bytes(bytes(size))
    assert measuring.parts(tmp_path) == {"weights": 1, "tokenizer": 5, "rest": 4}


@pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed")
def test_patches_are_of_the_parents_tar_and_leave_nothing_but_themselves(
    tmp_path: Path,
) -> None:
    chance = random.Random(1)
    first = chance.randbytes(400_000)
    for number in range(3):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "w").write_bytes(first + chance.randbytes(1000 * number))
    names: list[tuple[str, tuple[str, ...]]] = [
        ("v0", ()),
        ("v1", ("v0",)),
        ("v2", ("v1",)),
        ("again", ("v2",)),
    ]
    entries = [
        Entry(name, tmp_path / f"v{min(at, 2)}", parents, "model", "", 400_000, None)
        for at, (name, parents) in enumerate(names)
    ]
    rows = walk(patches.Patches(Programs(tmp_path / "none")), entries, tmp_path / "work")
    assert all(row.exact for row in rows)
    assert rows[0].kept > 400_000
    assert all(row.kept < 10_000 for row in rows[1:])
    home = tmp_path / "work" / "store"
    assert sorted(path.name for path in home.rglob("*")) == [
        "again.patch-from.v2.tar.zst",
        "repository",
        "v0.tar.zst",
        "v1.patch-from.v0.tar.zst",
        "v2.patch-from.v1.tar.zst",
    ]


def test_ours_finds_what_is_alike_without_a_parent_told(tmp_path: Path) -> None:
    Shelf(tmp_path / "tiny").make(madeup.HISTORIES["tiny"])
    rows = walk(Alone(), history("tiny", tmp_path)[:2], tmp_path / "work")
    assert all(row.exact for row in rows)
    assert rows[1].kept < 0.7 * rows[0].kept


def _options(*words: str) -> argparse.Namespace:
    return benchmarks.parse_options(words)


def test_what_takes_minutes_is_walked_once_and_by_some_tools() -> None:
    rounds = benchmarks.rounds(_options("--repeat", "3"))
    once = sorted(row for row in rounds if row[0] in benchmarks.OF_ONCE)
    assert once == sorted((name, key, 1) for name, keys in benchmarks.OF_ONCE.items() for key in keys)
    others = [
        (name, key, n) for name in ("H", "B", "L", "R", "G") for key in benchmarks.TOOLS for n in (1, 2, 3)
    ]
    assert sorted(each for each in rounds if each[0] not in benchmarks.OF_ONCE) == sorted(others)
    orders = {tuple(key for each, key, n in rounds if (each, n) == ("H", number)) for number in (1, 2, 3)}
    assert len(orders) == 3, "no tool always follows the same one"
    asked = benchmarks.rounds(_options("--histories", "G4", "--only-tools", "restic", "--repeat", "2"))
    assert asked == [("G4", "restic", 1)]


def test_only_the_whole_set_replaces_the_page(tmp_path: Path) -> None:
    shelf = keeping.Shelf(tmp_path / "walks")
    row = Row("base", 1, 1, 1.0, 1.0, 1.0, 1, 1, exact=True)
    walked = keeping.Walk(1, "abc", "2020-01-01 00:00:00", (0.1, 0.1), [row, row])

    def page() -> Path:
        return benchmarks.target(shelf, _options(), tmp_path)[0]

    for name, key, number in benchmarks.rounds(_options("--repeat", "1")):
        state = keeping.Conditions(key, key, "", "1", "", name, [{"name": "base", "bytes": 1}], {})
        shelf.put(state, replace(walked, number=number))
        if (name, key) == ("H", "dvc"):
            assert page() == tmp_path / "benchmarks" / "docs"
    assert page() == ROOT / "docs"
    assert {*RECIPES, *BRANCHES} >= set(USUAL)


def test_many_versions_are_asked_for_again_after_a_measurement_has_saved_into_them(tmp_path: Path) -> None:
    """The newest are then versions of no run, and there are entries that are no versions."""
    folder = tmp_path / "repository"
    simulated.build(folder, 100)
    for _ in range(4):
        scale.job_commit(folder)
    assert scale.TOP in scale.job_ask(folder)["answers"]
