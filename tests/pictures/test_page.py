"""The page: everything in one file, nothing that runs but our own, nothing that people named as markup."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

import stemmata
from makers import safetensors_bytes
from picture_makers import HOSTILE, adapter, llama, sweep
from picture_pages import Read, hostile_page
from stemmata.pictures import page
from stemmata.pictures.curves import Curves
from stemmata.pictures.heatmap import HeatMap
from stemmata.pictures.page import Page, Section
from stemmata.pictures.picture import Table
from stemmata.pictures.problems import PictureNotWritten
from stemmata.repository import Repository


def test_echarts_is_the_release_that_is_named_with_its_licence() -> None:
    folder = resources.files("stemmata.pictures") / "assets" / "echarts"
    script = (folder / "echarts.min.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == page.ECHARTS_SHA256
    assert f'"{page.ECHARTS}"'.encode() in script
    assert b"</script" not in script.lower()
    assert b"<!--" not in script
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert "Apache ECharts" in (folder / "NOTICE").read_text(encoding="utf-8")
    assert "Redistribution and use" in (folder / "LICENSE-d3").read_text(encoding="utf-8")


def test_a_page_says_better_where_the_declared_direction_does(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with stemmata.open(tmp_path / "models", create=True) as repo:
        for name, value in (("one", 1.0), ("two", 2.0)):
            (tmp_path / "out" / "weights.bin").write_bytes(name.encode())
            repo.save(tmp_path / "out", "m", name=name, metrics={"accuracy": value}, provenance={})
        assert "accuracy is better." in repo.diff("m@one", "m@two").to_html()
        repo.configure("m", metric="accuracy", direction="min")
        assert "accuracy is worse." in repo.diff("m@one", "m@two").to_html()


def test_what_people_named_is_text_or_json_and_no_markup() -> None:
    html = hostile_page().to_html()
    read = Read(html)
    assert "img" not in {tag for tag, _ in read.tags}
    assert not [a for _, attrs in read.tags for a in attrs if a.startswith("on")]
    assert HOSTILE in read.words
    assert "\x1b" not in html
    assert "\u202e" not in html
    data, *scripts = read.scripts
    told = json.loads(data)
    drawn = json.dumps(told, ensure_ascii=False).replace('\\"', '"')
    assert HOSTILE in drawn
    assert "\u202e" not in drawn
    assert "\\u001b" not in drawn
    assert "<" not in data
    assert HOSTILE not in "".join(scripts)


def test_what_several_versions_are_called_is_no_markup_either(shown: Repository) -> None:
    html = shown.diff("m@base", "m@r0/epoch-1", "m@r1/epoch-3", "m@r2/epoch-3").to_html()
    read = Read(html)
    assert "img" not in {tag for tag, _ in read.tags}
    assert not [a for _, attrs in read.tags for a in attrs if a.startswith("on")]
    assert HOSTILE in read.words
    assert "<" not in read.scripts[0]


def test_many_versions_have_a_line_each(shown: Repository) -> None:
    names = ["m@base", *(f"m@r{run}/epoch-{epoch}" for run in (0, 1, 2) for epoch in (1, 2, 3))]
    lines = " ".join(Read(shown.diff(*names).to_html()).lines)
    assert re.search(r"Metrics eval_loss ↓ eval_f1 ↑ .+ a – – .+ b 1 0\.6667 ", lines)
    nothing = Read(shown.diff(*["m@base"] * 9).to_html()).lines
    assert "Metrics" not in nothing


def test_a_page_without_charts_claims_none() -> None:
    html = Page("m", notes=("<b>",)).to_html()
    assert "ECharts" not in html
    assert "&lt;b&gt;" in html


def test_what_is_surprising_about_a_version_stands_on_its_page(tmp_path: Path) -> None:
    with Repository.in_memory() as repo:
        tensors = safetensors_bytes({"w": np.array([1, np.nan], np.float32)})
        (tmp_path / "model.safetensors").write_bytes(tensors)
        version = repo.save(tmp_path, "m", provenance={})
        assert "1 of its weights is not finite" in version.to_html()


def test_who_added_a_metric_and_on_what_stands_beside_it(tmp_path: Path) -> None:
    with Repository.in_memory() as repo:
        (tmp_path / "config.json").write_text("{}")
        repo.save(tmp_path, "m", name="one", metrics={"eval_loss": 0.5}, provenance={})
        added = repo.annotate("m@one", metrics={"f1": 0.75}, dataset="dev", source="lm-eval")
        words = " ".join(Read(added.to_html()).lines)
        assert re.search(r"Metrics eval_loss 0\.5 f1 0\.75 added \S+ \S+ by \S+, on dev, with lm-eval", words)


def test_modules_of_which_nothing_can_be_told_are_named(tmp_path: Path) -> None:
    with Repository.in_memory() as repo:
        for name, value in (("one", 1.0), ("two", math.nan)):
            path = adapter(tmp_path, 1) / "adapter_model.safetensors"
            tensors = load(path.read_bytes())
            tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"][0, 0] = value
            path.write_bytes(safetensors_bytes(tensors))
            repo.save(tmp_path, "m", name=name, provenance={})
        said = "model.layers.1.self_attn.q_proj: 1 of 96 values in the factors are NaN or infinite"
        assert said in repo["m@two"].to_html()
        diff = repo.diff("m@one", "m@two")
        assert said in diff.to_html()
        assert diff.heatmap().finding == "Nothing that can be compared moved."


def test_only_the_scripts_that_the_policy_names_are_there() -> None:
    read = Read(hostile_page().to_html())
    policy = next(
        a["content"] or "" for _, a in read.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    found = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in read.scripts[1:]}
    assert allowed == found
    assert len(found) == 2
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    assert "unsafe-eval" not in policy


def test_a_page_names_no_other_file(shown: Repository) -> None:
    for html in (shown.diff("m@base", "m@r0/epoch-1").to_html(), shown.versions("m").to_html()):
        read = Read(html)
        assert not [a for _, a in read.tags if {"src", "href", "action", "data"} & set(a)]
        assert {tag for tag, _ in read.tags} & {"link", "iframe", "object", "embed", "base", "form"} == set()
        style = html[html.index("<style>") : html.index("</style>")]
        assert "url(" not in style
        assert "@import" not in style


def test_a_page_without_pictures_has_no_script() -> None:
    html = Page("a", sections=(Section("b", tables=(Table("c", ("d",), (("e",),)),)),)).to_html()
    assert Read(html).scripts == []
    assert "script-src 'none'" in html


def test_facts_stand_beside_the_pictures_and_all_values_below(shown: Repository) -> None:
    words = Read(shown.diff("m@base", "m@r1/epoch-1").to_html()).words
    for expected in (
        "Where the weights moved",
        "Moved most",
        "layer 2",
        "values as a table",
        "Config",
        "Files",
    ):
        assert expected in words
    words = Read(shown.versions("m").to_html()).words
    for expected in (
        "Metrics of the runs",
        "Best of each run",
        "Settings that vary",
        "Lineage",
        "r2/epoch-3",
    ):
        assert expected in words
    words = Read(shown["lora@epoch-2"].to_html()).words
    for expected in ("In its run", "Spectrum of delta-W", "Effective rank, layer by layer", "Metrics"):
        assert expected in words


def test_a_large_page_stays_of_a_size_that_can_be_sent() -> None:
    curves = Curves.make("m", sweep(100, 12))
    page_of_all = Page("m", sections=(Section.of(curves), Section.of(HeatMap.make("m", llama(80)))))
    assert len(page_of_all.to_html()) < 4_500_000


def test_a_place_that_cannot_be_written_is_named(shown: Repository, tmp_path: Path) -> None:
    with pytest.raises(PictureNotWritten, match="No such file or directory"):
        shown.versions("m").to_html(tmp_path / "nosuch" / "m.html")
    with pytest.raises(PictureNotWritten):
        shown.versions("m").curves().to_html(tmp_path)
