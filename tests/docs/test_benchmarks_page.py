"""The page of benchmarks: its figures are those of the results beside it, and it says where others win."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

import benchpage
from doc_blocks import ROOT
from keeping import History, Results, Walk
from walking import AGAIN, Row

PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "bench" / "results" / "benchmarks.json"
MB = 10**6
VERSIONS = [("base", 80 * MB), ("epoch-1", 80 * MB), ("adapter", 2 * MB)]


def _walk(number: int, kept: float, save: float, restore: float, exact: bool = True) -> Walk:
    """Every version keeps that share, and takes that long."""
    rows = [
        Row(name, size, int(size * kept), save, restore, 0.5, 300 << 20, 200 << 20, exact)
        for name, size in VERSIONS
    ]
    again = Row(AGAIN, 80 * MB, 0, save / 2, restore, 0.5, 100 << 20, 100 << 20, exact=True)
    return Walk(number, "abc1234", f"2020-02-0{number} 10:00:00", (0.1 * number, 0.7), [*rows, again])


def _results(**walks: list[Walk]) -> Results:
    tools = {key: {"title": f"the {key}", "how": f"`{key} save`", "version": f"{key} 1.2"} for key in walks}
    versions = [{"name": name, "bytes": size, "what": ""} for name, size in VERSIONS]
    return Results({"processor": "abacus", "cores": "1"}, tools, [History("H", versions, dict(walks))])


def _lines(results: Results, begin: str) -> list[str]:
    page = benchpage.page(results, "benchmarks.json")
    return [line for line in page.splitlines() if line.startswith(begin)]


def test_the_page_and_its_pictures_are_what_the_results_beside_it_say() -> None:
    results = Results.read(RESULTS)
    again = "run .venv/bin/python bench/benchmarks.py --page"
    assert PAGE.read_text(encoding="utf-8") == benchpage.page(results, "../bench/results/benchmarks.json"), (
        again
    )
    drawn = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "docs/benchmarks").iterdir()}
    assert drawn == benchpage.pictures(results), again
    assert benchpage.inexact(results) == []


def test_where_others_win_is_said_with_both_figures() -> None:
    results = _results(stemmata=[_walk(1, 0.25, 3.0, 2.0)], other=[_walk(1, 0.5, 1.5, 1.99)])
    (row,) = [line for line in _lines(results, "| the other |") if "against" in line]
    _, _, theirs, mine, _ = row.split("|")
    assert "faster to save: 1.50 s against 3.00 s" in theirs
    assert "faster to save what is there already: 0.75 s against 1.50 s" in theirs
    assert mine.strip() == "keeps less: 40.5 MB against 81.0 MB"
    assert "restore" not in row, "2.00 s and 1.99 s are the same"
    (short,) = _lines(results, "- **H**")
    assert "stemmata keeps 40.5 MB (0.25 of the bytes)" in short
    assert "the 2nd fastest (3.00 s; the other: 1.50 s)" in short


def test_figures_are_medians_of_walks_and_means_of_versions() -> None:
    walks = [_walk(number, 0.5, save, 1.0) for number, save in ((1, 1.0), (2, 9.0), (3, 2.0))]
    results = _results(stemmata=walks)
    (row,) = _lines(results, "| **the stemmata** |")
    assert [cell.strip(" *") for cell in row.split("|")][2:8] == [
        "81.0",
        "0.500",
        "2.00",
        "4.0",
        "1.00",
        "1.00",
    ]
    page = benchpage.page(results, "benchmarks.json")
    assert "median over 3 walks" in page
    assert "| measured | 2020-02-01 10:00:00 to 2020-02-03 10:00:00 UTC, commit abc1234 |" in page
    assert "0.1 when the first walk began, 0.7 when the last had ended, at most 0.3 when one began" in page


def test_a_version_that_came_back_with_other_bytes_is_in_the_table() -> None:
    results = _results(
        stemmata=[_walk(1, 0.5, 1, 1)], other=[_walk(1, 0.5, 1, 1), _walk(2, 0.5, 1, 1, False)]
    )
    assert benchpage.inexact(results)[0] == "H, the other: base came back with other bytes"
    assert [line for line in _lines(results, "| the other |") if line.endswith("| **no** |")]


def test_a_page_without_stemmata_compares_nothing() -> None:
    page = benchpage.page(_results(other=[_walk(1, 0.5, 1, 1)]), "benchmarks.json")
    assert "stemmata itself was not measured" in page
    assert "Where others win" not in page


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = _results(stemmata=[_walk(1, 0.25, 3.0, 2.0)], other=[_walk(1, 0.5, 1.5, 2.0)])
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results


@pytest.mark.parametrize("tools", [1, 4, 10])
def test_pictures_keep_their_text_inside(tools: int) -> None:
    names = ["stemmata", *(f"another-{i}" for i in range(tools - 1))]
    results = _results(**{name: [_walk(1, 0.9 + i / 1000, i + 1, i + 1)] for i, name in enumerate(names)})
    for name, picture in benchpage.pictures(results).items():
        root = ET.fromstring(picture)
        height = float(root.attrib["height"])
        texts = root.findall("{http://www.w3.org/2000/svg}text")
        assert len(texts) > tools, name
        assert all(0 < float(text.attrib["y"]) < height for text in texts), name
        ends = [t for t in texts if re.search(r": [\d,.]+", t.text or "") and float(t.attrib["x"]) > 600]
        heights = [float(text.attrib["y"]) for text in ends]
        assert all(b - a >= 14.9 for a, b in pairwise(heights)), "labels overlap"
