"""The heat map: what a cell stands for, what was not moved or not comparable, and the finding above it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picture_makers import LAYERS, MODULES, llama, network, write
from stemmata.pictures.heatmap import HeatMap
from stemmata.pictures.matrix import Entry
from stemmata.repository import Repository

_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def cell(picture: HeatMap, row: str, column: str) -> object:
    at = (
        [r.label for r in picture.matrix.rows].index(row),
        [c.label for c in picture.matrix.columns].index(column),
    )
    return picture.matrix.cells[at]


def test_a_frozen_run_shows_just_the_layers_that_were_not(shown: Repository) -> None:
    picture = shown.diff("m@base", "m@r1/epoch-1").heatmap()
    rows = [r for r in picture.rows() if r["layer"] is not None]
    assert {r["layer"] for r in rows if r["state"] == "moved"} == {2, 3}
    assert {r["layer"] for r in rows if r["state"] == "still"} == {0, 1}
    assert all(r["value"] == pytest.approx(0.02, rel=1e-3) for r in rows if r["state"] == "moved")
    assert picture.finding.startswith("Weights of layers 2, 3 alone (of 4) moved ")
    assert {r["module"] for r in rows} == {*MODULES, "input_layernorm", None}


def test_what_did_not_move_is_part_of_the_whole(shown: Repository) -> None:
    diff = shown.diff("m@base", "m@r1/epoch-1")
    weights = shown["m@base"].statistics()
    whole = math.sqrt(sum(row.l2**2 for row in weights.values()))
    assert diff.weights is not None
    changed = math.sqrt(sum(m.change**2 for m in diff.weights.moved.values()))
    assert diff.heatmap().total == pytest.approx(changed / whole, rel=1e-6)


def test_two_versions_that_are_no_neighbours_read_the_same(shown: Repository) -> None:
    there = shown.diff("m@r0/epoch-1", "m@r1/epoch-3").heatmap()
    moved = [r for r in there.rows() if r["state"] == "moved"]
    assert len([r for r in moved if r["module"] in MODULES]) == LAYERS * len(MODULES)


def test_without_weights_it_says_that_nobody_asked(shown: Repository) -> None:
    picture = shown.diff("m@base", "m@r0/epoch-1", weights=False).heatmap()
    assert "not asked for" in " ".join(picture.notes)
    assert {r["state"] for r in picture.rows()} == {"strange", "still"}
    assert picture.finding == "Nothing that can be compared moved."


def test_of_two_loras_it_is_delta_w_that_moved(shown: Repository) -> None:
    diff = shown.diff("lora@epoch-1", "lora@epoch-2")
    picture = diff.heatmap()
    deltas = diff.lora.deltas
    assert deltas is not None
    assert picture.of == "delta-W"
    by_module = {m.module: m.relation.difference / (m.a.norm or 1) for m in deltas.common if m.relation}
    found = [r for r in picture.rows() if r["module"]]
    assert len(found) == len(by_module) == 2 * LAYERS
    for row in found:
        name = f"{row['stack']}.{row['layer']}.{row['module']}"
        assert row["value"] == pytest.approx(by_module[name], rel=1e-12)
    assert picture.total == pytest.approx(deltas.relative, rel=1e-9)


def test_parts_of_a_module_add_up_as_norms_do() -> None:
    picture = HeatMap.make(
        "",
        [
            Entry("h.0.attn.weight", "moved", 3.0, 30.0, 100, 10),
            Entry("h.0.attn.bias", "moved", 4.0, 40.0, 10, 0),
            Entry("h.0.mlp.weight", "still", 0.0, 120.0, 100, 100),
            Entry("h.1.attn.weight", "moved", 1.0, 0.0, 100),
            Entry("h.1.mlp.weight", "added", elements=100),
            Entry("head.weight", "strange", elements=9, note="F32 3 → F32 9"),
        ],
    )
    attention = cell(picture, "0", "attn")
    assert attention.value == pytest.approx(0.1)  # type: ignore[attr-defined]
    assert attention.unchanged == 10  # type: ignore[attr-defined]
    assert cell(picture, "0", "whole layer").value == pytest.approx(5 / 130)  # type: ignore[attr-defined]
    assert cell(picture, "1", "attn").value == math.inf  # type: ignore[attr-defined]
    assert set(picture.states) == {"still", "strange", "added"}
    text = picture.text(100)
    assert "new" in text
    assert "≠" in text
    assert "from zero" in picture.finding
    assert picture.scale.high < math.inf


def test_a_model_of_many_layers_and_columns_is_all_there() -> None:
    entries = llama(80, frozen=20)
    picture = HeatMap.make("a → b", entries)
    assert len(picture.matrix.rows) == 83
    assert len(picture.rows()) == 80 * 10 + 3
    many = [Entry(f"h.{i}.part{k}.weight", "moved", 1 + k, 10.0) for i in range(2) for k in range(60)]
    wide = HeatMap.make("a → b", many)
    assert len(wide.matrix.columns) == 29
    assert max(c.value or 0 for c in wide.matrix.cells.values()) == pytest.approx(6.0)


@given(st.integers(40, 160), st.sampled_from([0, 256, 1 << 24]), st.integers(0, 7))
def test_in_a_terminal_no_line_is_longer_than_it(width: int, colours: int, frozen: int) -> None:
    text = HeatMap.make("a → b", llama(7, frozen)).text(width, colours=colours)
    assert all(len(_ESCAPE.sub("", line)) <= width for line in text.split("\n"))
    assert bool(_ESCAPE.search(text)) == (colours > 0)


def test_it_is_a_table_too(shown: Repository) -> None:
    pytest.importorskip("pandas")
    picture = shown["m@r1/epoch-2"].heatmap()
    frame = picture.to_pandas()
    assert len(frame) == len(picture.rows())
    assert set(frame.state) == {"moved", "still"}
    values = frame[frame.state == "moved"].value
    assert np.allclose(values[:-1], 0.02, rtol=0.02)
    assert picture.to_dict()["kind"] == "heatmap"


def test_what_became_nan_is_not_said_to_have_stayed(tmp_path: Path) -> None:
    tensors = network()
    with Repository.in_memory() as repo:
        a = repo.save(write(tmp_path, tensors), "m", name="a", provenance={})
        name = "model.layers.1.mlp.up_proj.weight"
        after = {**tensors, name: np.full_like(tensors[name], np.nan)}
        b = repo.save(write(tmp_path, after), "m", name="b", parents=[a], provenance={})
        for picture in (repo.diff(a, b).heatmap(), b.heatmap()):
            strange = [row for row in picture.rows() if row["state"] == "strange"]
            assert ("1", "mlp.up_proj") in {(str(row["layer"]), row["module"]) for row in strange}
            assert picture.finding == "Nothing that can be compared moved."
