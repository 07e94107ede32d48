"""Tables of delta-W of stored versions: pairs found, sums over modules, and what cannot be told said."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from makers import Array, adapter_folder, safetensors_bytes
from stemmata.compare import deltas
from stemmata.compare.adapterfiles import scale_of
from stemmata.compare.deltas import DeltaDiff, DeltaTable
from stemmata.compare.factors import adapter_of
from stemmata.errors import DamagedObject
from stemmata.records import Base
from stemmata.repository import Repository
from stemmata.version import Version


@pytest.fixture
def repo() -> Iterator[Repository]:
    with Repository.in_memory() as opened:
        yield opened


def pair(seed: int, *, rank: int = 3, outputs: int = 10, inputs: int = 8) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "lora_A": rng.normal(size=(rank, inputs)).astype(np.float32),
        "lora_B": rng.normal(size=(outputs, rank)).astype(np.float32),
    }


Modules = Mapping[str, Mapping[str, Array]]


def saved(
    repo: Repository, folder: Path, modules: Modules, config: Mapping[str, Any] | None = None, **more: Any
) -> Version:
    folder.mkdir(exist_ok=True)
    tensors = {
        f"base_model.model.{module}.{side}.weight": values
        for module, sides in modules.items()
        for side, values in sides.items()
    }
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    told = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, **(config or {})}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return repo.save(folder, "m", provenance={}, **more)


def table(version: Version) -> DeltaTable:
    found = version.lora_spectra()
    assert found is not None
    return found


def compared(repo: Repository, a: Version, b: Version) -> DeltaDiff:
    found = repo.diff(a, b).lora.deltas
    assert found is not None
    return found


def delta(sides: Mapping[str, Array], scale: float) -> Any:
    return scale * sides["lora_B"].astype(np.float64) @ sides["lora_A"].astype(np.float64)


def test_a_table_and_its_sums(repo: Repository, tmp_path: Path) -> None:
    modules = {"h.0.q": pair(0), "h.1.q": pair(1), "h.0.v": pair(2, outputs=4)}
    found = table(saved(repo, tmp_path / "a", modules))
    assert [m.module for m in found.modules] == list(modules)
    norms = [np.linalg.norm(delta(sides, 2.0)) for sides in modules.values()]
    assert [m.norm for m in found.modules] == pytest.approx(norms)
    assert found.norm == pytest.approx(np.linalg.norm(norms))
    assert found.effective_rank is not None
    assert 1 < found.effective_rank <= 3
    told = found.to_dict()
    row = told["modules"]["h.0.v"]
    assert (row["r"], row["shape"], row["dtype"], row["scale"]) == (3, [4, 8], "F32", 2.0)
    assert len(row["singular_values"]) == 3
    json.dumps(told, allow_nan=False)


def test_the_step_between_two_adapters(repo: Repository, tmp_path: Path) -> None:
    first = {"h.0.q": pair(0), "h.1.q": pair(1), "old": pair(3)}
    second = {"h.0.q": pair(0), "h.1.q": pair(5, rank=2), "new": pair(6)}
    a = saved(repo, tmp_path / "a", first)
    b = saved(repo, tmp_path / "b", second, {"rank_pattern": {"h.1.q": 2}})
    found = compared(repo, a, b)
    moves = {m.module: m for m in found.common}
    assert list(moves) == ["h.0.q", "h.1.q"]
    assert moves["h.0.q"].identical
    assert moves["h.0.q"].difference == 0.0
    step = delta(second["h.1.q"], 3.0) - delta(first["h.1.q"], 2.0)
    assert moves["h.1.q"].difference == pytest.approx(np.linalg.norm(step))
    assert [m.module for m in found.most_moved()] == ["h.1.q"]
    assert [[m.module for m in side] for side in (found.dropped, found.added)] == [["old"], ["new"]]
    # A module that one side does not adapt is zero there.
    parts = [step, delta(first["old"], 2.0), delta(second["new"], 2.0)]
    assert found.difference == pytest.approx(math.hypot(*(np.linalg.norm(p) for p in parts)))
    assert not found.equal
    json.dumps(found.to_dict(), allow_nan=False)


def test_another_factorisation_is_equal_and_another_alpha_is_not(repo: Repository, tmp_path: Path) -> None:
    sides = pair(0)
    mix = np.random.default_rng(9).normal(size=(3, 3)) + 3 * np.eye(3)
    again = {
        "lora_A": (np.linalg.inv(mix) @ sides["lora_A"]).astype(np.float32),
        "lora_B": (sides["lora_B"] @ mix).astype(np.float32),
    }
    a, b = saved(repo, tmp_path / "a", {"q": sides}), saved(repo, tmp_path / "b", {"q": again})
    found = compared(repo, a, b)
    assert found.equal
    assert not found.common[0].identical
    assert found.relative is not None
    assert 0 < found.relative < 1e-6
    assert found.most_moved() == []
    # The same factors, scaled otherwise; and twice alpha is half B.
    c = saved(repo, tmp_path / "c", {"q": sides}, {"lora_alpha": 12})
    found = compared(repo, a, c)
    assert found.relative == pytest.approx(1.0)
    assert found.cosine == pytest.approx(1.0)
    half = {**sides, "lora_B": sides["lora_B"] / np.float32(2)}
    found = compared(repo, a, saved(repo, tmp_path / "d", {"q": half}, {"lora_alpha": 12}))
    assert found.equal
    assert found.relative == pytest.approx(0.0, abs=1e-15)


def test_a_fresh_adapter_has_no_directions_yet(repo: Repository, tmp_path: Path) -> None:
    sides = pair(0)
    fresh = {**sides, "lora_B": np.zeros_like(sides["lora_B"])}
    a, b = saved(repo, tmp_path / "a", {"q": fresh}), saved(repo, tmp_path / "b", {"q": sides})
    assert (table(a).norm, table(a).effective_rank) == (0.0, 0.0)
    found = compared(repo, a, b)
    assert (found.relative, found.cosine) == (None, None)
    assert found.difference == pytest.approx(table(b).norm)
    relation = found.common[0].relation
    assert relation is not None
    assert relation.to_dict()["output_overlap"] is None


def test_modules_that_cannot_be_told_say_why_and_the_others_are_told(
    repo: Repository, tmp_path: Path
) -> None:
    spoiled = pair(1)
    spoiled["lora_B"][0, 0] = np.nan
    modules = {
        "sound": pair(0),
        "spoiled": spoiled,
        "half": {"lora_A": pair(2)["lora_A"]},
        "ranks": {**pair(3), "lora_A": pair(3, rank=2)["lora_A"]},
        "whole": {"lora_A": np.ones((3, 8), np.int8), "lora_B": np.ones((10, 3), np.int8)},
        "flat": {"lora_A": np.ones(3, np.float32), "lora_B": np.ones((10, 3), np.float32)},
        "none": {"lora_A": np.ones((0, 8), np.float32), "lora_B": np.ones((10, 0), np.float32)},
        "kernel": {"lora_A": np.ones((3, 8, 2, 2), np.float32), "lora_B": np.ones((10, 3, 2, 2), np.float32)},
        # A convolution with so many groups would be expanded to more than memory has.
        "groups": {
            "lora_A": np.ones((1 << 16, 1, 1), np.float32),
            "lora_B": np.ones((1 << 16, 1, 1), np.float32),
        },
    }
    a, b = saved(repo, tmp_path / "a", modules), saved(repo, tmp_path / "b", {**modules, "sound": pair(9)})
    problems = {m.module: m.problem for m in table(a).modules}
    assert {name: bool(problem) for name, problem in problems.items()} == {
        name: name != "sound" for name in modules
    }
    assert "1 of 54 values in the factors are NaN" in problems["spoiled"]
    assert "ranks 2 and 3" in problems["ranks"]
    assert "stored as I8, no float" in problems["whole"]
    assert "one factor of two, A" in problems["half"]
    assert "[3]" in problems["flat"]
    assert "too large" in problems["groups"]
    assert table(a).norm is None  # of an unknown part no sum is told
    found = compared(repo, a, b)
    assert (found.difference, found.cosine, found.equal) == (None, None, False)
    assert {m.module: bool(m.problem) for m in found.common} == {n: n != "sound" for n in modules}
    assert len(found.most_moved()) == 1
    json.dumps(found.to_dict(), allow_nan=False)


def test_bases_that_differ_and_shapes_that_differ(repo: Repository, tmp_path: Path) -> None:
    one = Base(name_or_path="x", digest="a" * 64)
    a = saved(repo, tmp_path / "a", {"q": pair(0)}, base=one)
    b = saved(repo, tmp_path / "b", {"q": pair(0, inputs=9)}, base=Base(name_or_path="y", digest="b" * 64))
    found = compared(repo, a, b)
    assert found.notes == ("their bases differ: each delta-W is added to other weights",)
    assert found.common[0].problem == "delta-W is 10×8 in a and 10×9 in b"
    assert compared(repo, a, saved(repo, tmp_path / "c", {"q": pair(1)}, base=one)).notes == ()


def test_one_side_without_lora_has_nothing_to_compare(repo: Repository, tmp_path: Path) -> None:
    a = saved(repo, tmp_path / "a", {"q": pair(0)})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("none")
    b = repo.save(tmp_path / "b", "m", provenance={})
    assert b.lora_spectra() is None
    assert repo.diff(a, b).lora.deltas is None
    assert repo.diff(a, b).to_dict()["lora"]["deltas"] is None


def test_factors_are_read_when_they_are_asked_for(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (repo.save(adapter_folder(tmp_path / "out", seed), "m", provenance={}) for seed in (1, 2))
    found = repo.diff(a, b)
    first = found.lora.deltas
    assert first is not None
    assert found.lora.deltas is first  # and once

    def refuse(*_: object) -> None:
        raise AssertionError("a factor was read")

    monkeypatch.setattr("stemmata.compare.factors.Reader.pair", refuse)
    assert repo.diff(a, b).lora.a is not None


def test_damaged_factors_are_said_and_the_rest_is_told(repo: Repository, tmp_path: Path) -> None:
    version = saved(repo, tmp_path / "a", {"q": pair(0), "v": pair(1)})
    adapter = adapter_of(version.tree(), version.read)
    assert adapter is not None
    damaged, fill = adapter.pairs["q"].a.objects[0], version.object_filler()

    def read(digest: str, into: memoryview) -> None:
        if digest == damaged:
            raise DamagedObject(digest=digest, pack="p", reason="a bit has flipped")
        fill(digest, into)

    found = {m.module: m for m in deltas.table(adapter, read).modules}
    assert found["q"].problem == "its factors cannot be read: damaged-object"
    assert found["q"].norm is None
    assert found["v"].norm is not None
    move = deltas.compare_deltas(adapter, adapter, read, read).common
    assert [bool(m.problem) for m in move] == [True, False]


@pytest.mark.parametrize(
    ("config", "scale", "why"),
    [
        ({"lora_alpha": 8}, 2.0, ""),
        ({"lora_alpha": 8, "use_rslora": True}, 4.0, ""),
        ({"lora_alpha": 8, "use_rslora": "yes"}, 2.0, ""),
        ({"lora_alpha": -8}, -2.0, ""),
        ({"lora_alpha": 8, "alpha_pattern": {"q": 4, "h.0.q": 12}}, 1.0, ""),
        ({"lora_alpha": 8, "alpha_pattern": {"h.0.q": 12, "q": 4}}, 3.0, ""),
        ({"lora_alpha": 8, "alpha_pattern": {"^q": 4, r"^h\.0\.q": 12}}, 3.0, ""),
        ({"lora_alpha": 8, "alpha_pattern": {"0.q": 4}}, 1.0, ""),
        ({"lora_alpha": 8, "alpha_pattern": {"k": 4}}, 2.0, ""),
        ({"lora_alpha": 8, "alpha_pattern": {"q": 4, "(a+)+$": 12}}, 1.0, ""),
        ({"lora_alpha": 8, "alpha_pattern": {"(a+)+$": 12, "q": 4}}, None, "regular expression"),
        ({"lora_alpha": 8, "alpha_pattern": [3]}, 2.0, ""),
        ({"lora_alpha": "8"}, None, "no lora_alpha"),
        ({"lora_alpha": True}, None, "no lora_alpha"),
        ({"lora_alpha": 10**400}, None, "no lora_alpha"),
        ({"r": 4}, None, "no lora_alpha"),
        ({}, None, "cannot be read as JSON"),
        (None, None, "no adapter_config.json"),
    ],
)
def test_the_scale_is_peft_s(config: dict[str, Any] | None, scale: float | None, why: str) -> None:
    found = scale_of(config, "h.0.q", 4)
    assert found.value == scale
    assert why in found.unknown
    assert bool(found.unknown) == bool(why)


def test_a_diverged_adapter_is_compared_and_drawn_as_far_as_the_other_can_be_told(
    repo: Repository, tmp_path: Path
) -> None:
    sound = {"h.0.q": pair(0), "h.1.q": pair(1)}
    spoiled = {
        name: {**sides, "lora_A": np.full_like(sides["lora_A"], np.nan)} for name, sides in sound.items()
    }
    a, b = saved(repo, tmp_path / "a", sound), saved(repo, tmp_path / "b", spoiled, name="diverged")
    found = repo.diff(a, b)
    drawn = found.spectra()
    assert drawn is not None
    assert drawn.finding.startswith("Of m@diverged nothing can be told; before it the median module had")
    assert drawn.finding in drawn.text(200)
    assert drawn.ranks.is_empty
    assert drawn.finding in drawn._repr_html_()
    for diff in (found, repo.diff(b, a), repo.diff(b, b)):
        assert diff.to_html()
        assert diff.spectra()
    nothing = repo.get(b.id).spectra()
    assert nothing is not None
    assert nothing.finding == nothing.text(80).splitlines()[0] == "Nothing can be told."
