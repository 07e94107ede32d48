"""The page of benchmarks: its figures are those of the results beside it, and it says where others win."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import benchpage
from doc_blocks import ROOT
from keeping import History, Results, Walk
from walking import AGAIN, Row

PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "bench" / "results" / "benchmarks.json"
MB = 10**6
VERSIONS = [("base", 80 * MB), ("epoch-1", 80 * MB), ("adapter", 2 * MB)]


def _walk(
    number: int, kept: float, save: float, restore: float, exact: bool = True, copy: float = 0.5, **more: Any
) -> Walk:
    """Every version keeps that share, and takes that long."""
    rows = [
        Row(name, size, int(size * kept), save, restore, copy, 300 * MB, 200 * MB, exact)
        for name, size in VERSIONS
    ]
    again = Row(AGAIN, 80 * MB, 0, save / 2, restore, copy, 100 * MB, 100 * MB, exact=True)
    return Walk(number, "abc1234", f"2020-02-0{number} 10:00:00", (0.1 * number, 0.7), [*rows, again], **more)


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
    assert _lines(results, "| faster to save |") == ["| faster to save | the other 1.50 s | 3.00 s |"]
    assert _lines(results, "| faster to save `again` |") == [
        "| faster to save `again` | the other 0.75 s | 1.50 s |"
    ]
    assert not _lines(results, "| faster to restore"), "2.00 s and 1.99 s are the same"
    assert not _lines(results, "| keeps less"), "only where others win"
    (short,) = _lines(results, "- H, ")
    assert (
        "stemmata keeps 40.5 MB, 0.25 of the bytes (0.25 of the first version, 0.25 of all weights in"
        in short
    )
    assert "Saving a version takes 3.00 s; with the other 1.50 s." in short


def test_in_short_the_smallest_and_the_quickest_of_the_others_stand_beside_ours() -> None:
    ours, small, quick = _walk(1, 0.25, 1.0, 1.0), _walk(1, 0.5, 6.0, 6.0), _walk(1, 1.0, 2.0, 3.0)
    (short,) = _lines(_results(stemmata=[ours], small=[small], quick=[quick]), "- H, ")
    assert "of the others the small keeps least" in short
    assert "Saving a version takes 1.00 s; with the small 6.00 s, with the quick 2.00 s." in short
    assert "Bringing one back takes 1.00 s; with the small 6.00 s, with the quick 3.00 s." in short


def test_everything_is_divided_by_the_same_copies() -> None:
    slow, quick, third = (_walk(1, 0.5, 2.0, 1.0, copy=copy) for copy in (1.0, 0.4, 0.5))
    results = _results(stemmata=[slow], one=[quick], two=[third])
    rows = [*_lines(results, "| the stemmata | **81"), *_lines(results, "| the one | **81")]
    assert [[row.split("|")[at].strip(" *") for at in (5, 8)] for row in rows] == [["4.0", "2.0"]] * 2
    page = benchpage.page(results, "benchmarks.json")
    assert "While the stemmata walked, the copies took 2.0 times" in page
    assert "While the two walked" not in page


def test_of_one_walk_what_copies_differ_by_means_nothing() -> None:
    copies = _walk(1, 1.0, 1.0, 1.0, copy=1.0)
    copies.rows[1] = replace(copies.rows[1], save=1.3, restore=1.6)
    copies.rows[-1] = replace(copies.rows[-1], save=1.0)
    other = [_walk(1, 0.5, 2.0, 2.0)]
    results = _results(stemmata=[_walk(1, 0.25, 2.5, 4.0)], cp=[copies], other=other)
    page = benchpage.page(results, "benchmarks.json")
    assert "differences under 30% of a time to save, or under 60% of a time to restore mean nothing" in page
    assert "the other" not in _lines(results, "| faster to save |")[0], "2.5 s is not 1.3 times 2.0 s"
    assert "the other 2.00 s" in _lines(results, "| faster to restore |")[0]


def test_of_several_walks_their_spread_tells_what_differs() -> None:
    ours = [_walk(number, 0.25, save, 5.0) for number, save in ((1, 3.0), (2, 4.0), (3, 5.0))]
    near = [_walk(number, 0.5, save, 5.0) for number, save in ((1, 1.0), (2, 1.5), (3, 3.5))]
    far = [_walk(number, 0.5, save, 5.0) for number, save in ((1, 1.0), (2, 1.5), (3, 2.5))]
    results = _results(stemmata=ours, near=near, far=far)
    (row,) = _lines(results, "| faster to save |")
    assert row == "| faster to save | the far 1.50 s (1.00-2.50) | 4.00 s (3.00-5.00) |"
    assert "mean nothing: so far apart" not in benchpage.page(results, "benchmarks.json")


def test_what_older_results_lack_is_left_out() -> None:
    old = _results(stemmata=[_walk(1, 0.5, 1, 1)])
    assert "to start" not in benchpage.page(old, "benchmarks.json")
    assert _lines(old, "| version | MB | what |")
    begun = _walk(1, 0.5, 1, 1, method=2, starting="stemmata --version", start=0.25)
    new = _results(stemmata=[begun])
    new.histories[0].versions[1]["parents"] = ["base"]
    assert _lines(new, "| the stemmata | `stemmata --version` | 0.25 | 1.00 | 1.00 |")
    assert _lines(new, "| epoch-1 | base | 80.0 |")
    assert benchpage.pagewords.WARM[2] in benchpage.page(new, "benchmarks.json")
    assert benchpage.pagewords.WARM[1] in benchpage.page(old, "benchmarks.json")


def test_kinds_are_summed() -> None:
    results = _results(stemmata=[_walk(1, 0.25, 1, 1)], other=[_walk(1, 0.5, 1, 1)])
    assert _lines(results, "| all weights in fp32 |") == [
        "| all weights in fp32 | 1 | 80.0 | **20.0** | 40.0 |"
    ]


def test_figures_are_medians_of_walks_and_means_of_versions() -> None:
    walks = [_walk(number, 0.5, save, 1.0) for number, save in ((1, 1.0), (2, 9.0), (3, 2.0))]
    results = _results(stemmata=walks)
    (row,) = _lines(results, "| the stemmata | **81")
    assert [cell.strip(" *") for cell in row.split("|")][2:8] == [
        "81.0",
        "0.500",
        "2.00 (1.00-9.00)",
        "4.0 (2.0-18.0)",
        "1.00 (0.50-4.50)",
        "1.00",
    ]
    page = benchpage.page(results, "benchmarks.json")
    assert "the median of 3 walks" in page
    assert "| measured | 2020-02-01 10:00:00 to 2020-02-03 10:00:00 UTC, commit abc1234 |" in page
    assert "0.1 when the first walk began, 0.7 when the last had ended, at most 0.7;" in page


def test_a_version_that_came_back_with_other_bytes_is_in_the_table() -> None:
    results = _results(
        stemmata=[_walk(1, 0.5, 1, 1)], other=[_walk(1, 0.5, 1, 1), _walk(2, 0.5, 1, 1, False)]
    )
    assert benchpage.inexact(results)[0] == "H, the other: base came back with other bytes"
    assert [line for line in _lines(results, "| the other |") if line.endswith("| NO |")]


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
    top = 78
    for name, picture in benchpage.pictures(results).items():
        root = ET.fromstring(picture)
        height = float(root.attrib["height"])
        texts = root.findall("{http://www.w3.org/2000/svg}text")
        assert len(texts) > tools, name
        assert all(0 < float(text.attrib["y"]) < height for text in texts), name
        ends = [t for t in texts if re.search(r": [\d,.]+", t.text or "") and float(t.attrib["x"]) > 600]
        heights = [float(text.attrib["y"]) for text in ends]
        assert len(ends) == (tools if "growth" in name else 0)
        assert all(b - a >= 15.9 for a, b in pairwise(heights)), "labels overlap"
        assert all(y >= top for y in heights), "labels rise above the plot"
