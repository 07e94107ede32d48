"""What is learnt of weights while they are saved: equal to what torch computes, against the parent whatever a
tensor is coded against, and the same whether it was kept or is read anew."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import stemmata
from stemmata.errors import SurprisingSave
from stemmata.repository import Repository
from stemmata.version import Version
from torch_statistics import require, require_way

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return stemmata.init(tmp_path / "repo")


def _weights(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {
        "wide": torch.randn(700, 400, generator=generator) + 0.1,
        "half": torch.randn(128, 300, generator=generator).half(),
        "brain": torch.randn(5000, generator=generator).bfloat16(),
        "double": torch.randn(77, generator=generator, dtype=torch.float64),
        "whole": torch.randint(-100, 100, (300, 7), generator=generator, dtype=torch.int8),
        "one": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
    }


def _nudged(tensors: Tensors, seed: int, *names: str, by: float = 1e-3) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    found = dict(tensors)
    for name in names:
        noise = torch.randn(found[name].shape, generator=generator, dtype=torch.float64) * by
        found[name] = (found[name].double() + noise).to(found[name].dtype)
    return found


def _save(repo: Repository, folder: Path, tensors: Tensors, *parents: Version, **more: object) -> Version:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return repo.save(folder, "m", parents=parents, provenance={}, **more)  # type: ignore[arg-type]


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "catalog" not in path.name}


def test_every_statistic_is_what_torch_computes(repo: Repository, tmp_path: Path) -> None:
    first = _weights(0)
    second = _nudged(first, 1, "wide", "half", "brain", "double", "one")
    second["whole"] = first["whole"].clone()
    second["whole"][5:9] += 1
    v = _save(repo, tmp_path / "m", first)
    w = _save(repo, tmp_path / "m", second, v)
    assert set(v.statistics()) == set(first)
    for name, row in v.statistics().items():
        require(row, first[name])
        assert row.movement is None
    for name, row in w.statistics().items():
        require(row, second[name])
        if first[name].numel():
            require_way(row.movement, first[name], second[name])


def test_it_is_held_against_the_parent_whatever_it_is_coded_against(repo: Repository, tmp_path: Path) -> None:
    """The third is next to the first, and so coded against that; its parent is the second."""
    first = _weights(0)
    second = _weights(9)
    third = _nudged(first, 2, "wide", "half")
    fourth = {**second, "wide": first["wide"]}  # stored already, and not in its parent
    v = _save(repo, tmp_path / "m", first)
    w = _save(repo, tmp_path / "m", second, v)
    x = _save(repo, tmp_path / "m", third, w)
    y = _save(repo, tmp_path / "m", fourth, w)
    for name in ("wide", "half", "brain", "double"):
        require_way(x.statistics()[name].movement, second[name], third[name])
    require_way(y.statistics()["wide"].movement, second["wide"], first["wide"])


def test_what_stayed_is_known_to_have(repo: Repository, tmp_path: Path) -> None:
    first = _weights(3)
    v = _save(repo, tmp_path / "m", first)
    w = _save(repo, tmp_path / "m", _nudged(first, 4, "half"), v)
    for name in ("wide", "brain", "double", "whole"):
        moved = w.statistics()[name].movement
        assert moved is not None
        assert moved.change == 0
        assert moved.relative == 0
        assert moved.unchanged == first[name].numel()
        require(w.statistics()[name], first[name])


def test_a_tensor_of_several_pieces_is_one(repo: Repository, tmp_path: Path) -> None:
    first = {"big": torch.arange(17 << 20, dtype=torch.int32).to(torch.uint8)}
    second = {"big": first["big"].clone()}
    second["big"][-1000:] += 1  # the first piece stays
    v = _save(repo, tmp_path / "m", first)
    w = _save(repo, tmp_path / "m", second, v)
    row = w.statistics()["big"]
    require(row, second["big"])
    require_way(row.movement, first["big"], second["big"])
    moved = repo.diff(v, w).weights
    assert moved is not None
    assert moved.moved["big"] == row.movement


def test_a_narrower_type_is_held_against_the_wide_one(repo: Repository, tmp_path: Path) -> None:
    first = {"wide": _weights(5)["wide"]}
    second = {"wide": first["wide"].bfloat16()}
    v = _save(repo, tmp_path / "m", first)
    w = _save(repo, tmp_path / "m", second, v)
    require_way(w.statistics()["wide"].movement, first["wide"], second["wide"])
    quantised = _save(repo, tmp_path / "m", {"wide": first["wide"].to(torch.int8)}, v)
    assert quantised.statistics()["wide"].movement is None
    found = repo.diff(v, quantised).weights
    assert found is not None
    assert found.incomparable == ("wide",)


def test_what_was_kept_is_what_reading_tells(repo: Repository, tmp_path: Path) -> None:
    first = _weights(0)
    tensors, versions = first, [_save(repo, tmp_path / "m", first)]
    for k in range(1, 4):
        tensors = _nudged(tensors, k, "wide", "brain")
        versions.append(_save(repo, tmp_path / "m", tensors, versions[-1]))
    kept = repo.diff(versions[2], versions[3]).weights
    back = repo.diff(versions[3], versions[2]).weights
    far = repo.diff(versions[0], versions[3]).weights
    assert kept is not None
    assert back is not None
    assert far is not None
    assert kept.read == back.read == 0
    assert far.read == sum(2 * first[n].nbytes for n in ("wide", "brain"))
    for name in ("wide", "brain"):
        require_way(far.moved[name], first[name], tensors[name])
        assert back.moved[name] == kept.moved[name].back()
    assert repo.diff(versions[0], versions[3], weights=False).weights is None


def test_a_number_that_is_none_is_told_at_the_save_and_in_the_log(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = _weights(0)
    v = _save(repo, tmp_path / "m", first)
    second = _nudged(first, 1, "wide")
    second["wide"][0, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    with caplog.at_level(logging.WARNING, "stemmata"):
        w = _save(repo, tmp_path / "m", second, v)
    assert "3 of its weights are not finite" in caplog.text
    assert w.surprises()[0].kind == "nonfinite"
    row = w.statistics()["wide"]
    assert row.nonfinite == 3
    assert math.isfinite(row.l2)
    assert w.record.statistics is not None
    assert w.record.statistics.nonfinite == 3
    assert not v.surprises()


def test_an_explosion_is_told_but_not_what_begins_at_zero(repo: Repository, tmp_path: Path) -> None:
    first = {**_weights(0), "lora_B": torch.full((50, 8), 1e-6)}
    v = _save(repo, tmp_path / "m", first)
    second = {**first, "wide": first["wide"] * 40, "lora_B": first["lora_B"] * 1000}
    w = _save(repo, tmp_path / "m", second, v)
    assert w.record.statistics is not None
    assert w.record.statistics.grown == ["wide"]
    assert [s.kind for s in w.surprises()] == ["exploded"]


def test_a_parent_that_is_damaged_costs_what_is_told_of_it_alone(tmp_path: Path) -> None:
    repo = stemmata.init(tmp_path / "repo")
    first = _weights(0)
    v = _save(repo, tmp_path / "m", first)
    pack = next(path for path in (tmp_path / "repo" / "packs").rglob("*") if path.is_file())
    data = bytearray(pack.read_bytes())
    data[len(data) // 3] ^= 0xFF
    pack.chmod(0o644)
    pack.write_bytes(data)
    second = _nudged(first, 1, *(name for name in first if first[name].is_floating_point()))
    with stemmata.open(tmp_path / "repo") as again:
        w = _save(again, tmp_path / "m", second, again.get(v.id))
        for name, row in w.statistics().items():
            require(row, second[name])


def test_a_version_without_statistics_is_compared_all_the_same(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _weights(0)
    second = _nudged(first, 1, "wide")
    with monkeypatch.context() as old:
        old.setattr("stemmata.surveyor.Surveyor.table", lambda self: {})
        v = _save(repo, tmp_path / "m", first)
        w = _save(repo, tmp_path / "m", second, v)
    assert w.record.statistics is None
    found = repo.diff(v, w).weights
    assert found is not None
    assert found.read > 0
    require_way(found.moved["wide"], first["wide"], second["wide"])
    assert w.statistics() == {}


class TestStrict:
    def test_refuses_and_leaves_nothing(self, repo: Repository, tmp_path: Path) -> None:
        first = _weights(0)
        v = _save(repo, tmp_path / "m", first)
        before = _files(tmp_path / "repo")
        with pytest.raises(SurprisingSave, match="BF16, in its parent F32"):
            _save(repo, tmp_path / "m", {**first, "wide": first["wide"].bfloat16()}, v, strict=True)
        assert [x.id for x in repo.versions("m")] == [v.id]
        assert _files(tmp_path / "repo") == before

    def test_lets_pass_what_training_does(self, repo: Repository, tmp_path: Path) -> None:
        first = _weights(0)
        v = _save(repo, tmp_path / "m", first)
        w = _save(repo, tmp_path / "m", _nudged(first, 1, "wide", "half", by=0.1), v, strict=True)
        assert not w.surprises()


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"embed_tokens": torch.zeros(110, 8)}, "vocabulary", "a vocabulary of 110 in place of 100"),
        ({"head": torch.zeros(3, 5)}, "shape", "other shapes than in its parent: head"),
        ({"head": None}, "missing", "1 tensor is missing that its parent has: head"),
        ({"lm_head": torch.ones(800, 1000)}, "grown", "lm_head came along"),
        ({"head": torch.zeros(4, 5).half()}, "dtype", "1 tensor is F16, in its parent F32"),
    ],
)
def test_what_nobody_would_expect(
    repo: Repository, tmp_path: Path, change: dict[str, torch.Tensor | None], kind: str, words: str
) -> None:
    first = {"embed_tokens": torch.ones(100, 8), "head": torch.ones(4, 5)}
    v = _save(repo, tmp_path / "m", first)
    second = {name: tensor for name, tensor in {**first, **change}.items() if tensor is not None}
    w = _save(repo, tmp_path / "m", second, v)
    assert [s.kind for s in w.surprises()] == [kind]
    assert words in str(w.surprises()[0])


def test_an_adapter_of_a_model_lacks_nothing_of_it(repo: Repository, tmp_path: Path) -> None:
    model = _save(repo, tmp_path / "model", _weights(1))
    factors = {f"base_model.model.a.lora_{x}.weight": torch.ones(4, 4) for x in "AB"}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    adapter = _save(repo, tmp_path / "adapter", factors, model, strict=True)
    merged = _save(repo, tmp_path / "merged", _weights(2), adapter, strict=True)
    assert not adapter.surprises()
    assert not merged.surprises()
    lost = _save(repo, tmp_path / "adapter", {k: v for k, v in factors.items() if "lora_B" in k}, adapter)
    assert [s.kind for s in lost.surprises()] == ["missing"]


def test_what_is_lost_of_statistics_leaves_the_version_whole(repo: Repository, tmp_path: Path) -> None:
    first = _weights(0)
    v = _save(repo, tmp_path / "m", first)
    next(path for path in (tmp_path / "repo" / "packs").rglob("*") if path.is_file()).unlink()
    with stemmata.open(tmp_path / "repo") as again:
        assert not again.check().sound
        assert again.repair(tmp_path / "m").sound
        report = again.check()
        assert report.sound
        assert "statistics" in {note.kind for note in report.notes}
        whole = again.get(v.id)
        assert whole.statistics() == {}
        again.gc(undo_window=0, grace=0)
        again.repack()
        assert again.check().sound
        w = _save(again, tmp_path / "m", _nudged(first, 1, "wide"), whole)
        require_way(w.statistics()["wide"].movement, first["wide"], _nudged(first, 1, "wide")["wide"])


@pytest.mark.parametrize("first", ["half", "brain"])
def test_the_same_bytes_are_read_as_the_numbers_that_the_tensor_has(
    repo: Repository, tmp_path: Path, first: str
) -> None:
    # Stored once, under the type of whichever came first in the file.
    half = torch.randn(64, generator=torch.Generator().manual_seed(0)).half()
    before = {"half": half, "brain": half.view(torch.bfloat16).clone()}
    after = {**before, first: before[first] * 2}
    a = _save(repo, tmp_path / "a", before)
    rows = _save(repo, tmp_path / "b", after, a).statistics()
    for name in before:
        require(rows[name], after[name])
        require_way(rows[name].movement, before[name], after[name])


def test_the_same_bytes_as_another_type_are_other_numbers(repo: Repository, tmp_path: Path) -> None:
    signed = torch.arange(-50, 50, dtype=torch.int8)
    floats = torch.randn(64, generator=torch.Generator().manual_seed(0)).half()
    a = _save(repo, tmp_path / "a", {"whole": signed, "half": floats})
    after = {"whole": signed.view(torch.uint8), "half": floats.view(torch.bfloat16)}
    rows = _save(repo, tmp_path / "b", after, a).statistics()
    for name, tensor in after.items():
        require(rows[name], tensor)
    assert rows["whole"].movement is None
    require_way(rows["half"].movement, floats, after["half"])


def test_neither_positions_nor_what_has_no_number_hide_an_explosion(repo: Repository, tmp_path: Path) -> None:
    before = {
        "a.none": torch.zeros(0, 4),
        "a.positions": torch.arange(512),
        "a.batches": torch.tensor(5),
        "a.strange": torch.full((3,), math.nan),
        "b": torch.randn(100, generator=torch.Generator().manual_seed(0)),
    }
    a = _save(repo, tmp_path / "a", before)
    after = {**before, "b": before["b"] * 30, "a.batches": torch.tensor(50_000)}
    assert _save(repo, tmp_path / "b", after, a).record.statistics.grown == ["b"]  # type: ignore[union-attr]


@pytest.mark.parametrize("scale", [1e300, 1e-312])
def test_at_the_ends_of_what_a_float_can_be(repo: Repository, tmp_path: Path, scale: float) -> None:
    x = torch.randn(77, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale
    row = _save(repo, tmp_path / "m", {"x": x}).statistics()["x"]
    for found, wanted in ((row.mean, x.mean()), (row.std, x.std()), (row.min, x.min()), (row.max, x.max())):
        assert found == pytest.approx(float(wanted), rel=1e-6, abs=0)
