"""What notebooks show, and what becomes a table: small, safe, without scripts or anything to fetch."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from makers import model_folder, safetensors_bytes
from picture_makers import HOSTILE
from picture_pages import Read
from stemmata.repository import Repository


def read(html: str) -> Read:
    """It as a parser sees it, and held against what a notebook may show."""
    found = Read(html)
    assert found.scripts == []
    assert {tag for tag, _ in found.tags} & {"script", "style", "iframe", "link", "form", "object"} == set()
    for _, attrs in found.tags:
        assert not [name for name in attrs if name.startswith("on")]
        assert (attrs.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
        assert "href" not in attrs
    assert not re.search(r"url\(|@import", html)
    return found


def test_a_repository_shows_its_models(shown: Repository) -> None:
    found = read(shown._repr_html_())
    for expected in ("2 models", "m", "lora", "10", "production → r0/epoch-2"):
        assert expected in found.words
    with Repository.in_memory() as empty:
        assert "0 models" in read(empty._repr_html_()).words


def test_a_list_shows_versions_and_the_metric_of_most_interest(shown: Repository) -> None:
    found = read(shown.versions("m")._repr_html_())
    for expected in ("10 versions", "r0/epoch-3", "eval_loss", "production", "#v1", HOSTILE):
        assert expected in found.words
    assert "polyline" in {tag for tag, _ in found.tags}
    assert len(shown.versions("m")._repr_html_()) < 20_000
    assert "0 versions" in read(shown.versions("m").where("eval_loss > 99")._repr_html_()).words


def test_a_version_shows_what_it_scored(shown: Repository) -> None:
    found = read(shown["m@r0/epoch-2"]._repr_html_())
    for expected in ("m@r0/epoch-2", "production", "epoch 2", "eval_loss", "0.5", HOSTILE):
        assert expected in found.words


def test_a_diff_shows_what_differs_and_where_the_weights_moved(shown: Repository) -> None:
    diff = shown.diff("m@base", "m@r1/epoch-1")
    found = read(diff._repr_html_())
    for expected in ("m@base → m@r1/epoch-1", "eval_loss", "Weights of layers 2, 3 alone", "q_proj", "2.0"):
        assert expected in found.words
    assert "very same files" in read(shown.diff("m@base", "m@base")._repr_html_()).words
    assert "eval_loss" in read(shown.diff("lora@epoch-1", "lora@epoch-2")._repr_html_()).words


def test_pictures_show_themselves_as_an_image(shown: Repository) -> None:
    for picture in (shown.versions("m").curves(), shown.lineage("m").graph()):
        found = read(picture._repr_html_())
        assert [tag for tag, _ in found.tags].count("img") == 1
        assert picture.title in (next(a["alt"] for tag, a in found.tags if tag == "img") or "")


def test_a_diff_in_hand_is_shown_after_the_repository_was_closed(tmp_path: Path) -> None:
    repo = Repository.in_memory()
    a = repo.save(model_folder(tmp_path / "a", 1), "m", provenance={})
    b = repo.save(model_folder(tmp_path / "a", 2), "m", provenance={}, parents=[a])
    diff = repo.diff(a, b)
    repo.close()
    assert "Weights" in read(diff._repr_html_()).words


def test_tensors_are_a_table(shown: Repository) -> None:
    pytest.importorskip("pandas")
    frame = shown["m@r1/epoch-2"].to_pandas().set_index("tensor")
    assert len(frame) == 4 * 5 + 3
    assert frame.loc["model.layers.3.self_attn.q_proj.weight", "relative_change"] == pytest.approx(
        0.02, rel=1e-2
    )
    assert frame.loc["model.layers.0.self_attn.q_proj.weight", "relative_change"] == 0
    found = shown.diff("m@base", "m@r1/epoch-1").to_pandas().set_index("tensor")
    assert (found.state == "changed").sum() == 2 * 5
    assert np.isclose(found.loc["model.layers.2.mlp.up_proj.weight", "relative"], 0.02, rtol=1e-3)
    curves = shown.versions("m").curves().to_pandas()
    assert set(curves[curves.metric == "eval_loss"].run) == set(curves.run)


def test_dictionaries_are_json(shown: Repository) -> None:
    pictures = [
        shown.diff("m@base", "m@r1/epoch-1").heatmap(),
        shown.versions("m").curves("eval_loss"),
        shown.versions("m").parallel(),
        shown.lineage("m").graph(),
    ]
    for picture in pictures:
        told = json.loads(json.dumps(picture.to_dict()))
        assert told["kind"] == picture.kind
        assert len(told["rows"]) == len(picture.rows()) > 0
        assert picture.title in repr(picture)


def test_a_tensor_of_a_name_that_is_markup_is_shown_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with Repository.in_memory() as repo:
        made = []
        for seed in (1, 2):
            values = np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)
            (folder / "model.safetensors").write_bytes(safetensors_bytes({f"h.0.{HOSTILE}": values}))
            made.append(repo.save(folder, "m", provenance={}))
        diff = repo.diff(*made)
        read(diff._repr_html_())
        page = Read(diff.to_html())
        assert "img" not in {tag for tag, _ in page.tags}


def test_several_versions_show_their_metrics_and_what_varies(shown: Repository) -> None:
    found = shown.diff("m@base", "m@r0/epoch-1", "m@r2/epoch-3")
    seen = read(found._repr_html_())
    for expected in ("3 versions", "m@r2/epoch-3", "eval_loss ↓", "learning_rate", HOSTILE):
        assert expected in seen.words
    drawn = found.parallel()
    assert [strand.version for strand in drawn.strands] == ["c m@r2/epoch-3", "b m@r0/epoch-1"]
    assert "learning_rate" in drawn.to_pandas().columns


def test_a_lineage_shows_itself(shown: Repository) -> None:
    found = read(shown.lineage("m")._repr_html_())
    assert next(attrs["alt"] for tag, attrs in found.tags if tag == "img").startswith("Lineage: m.")
