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
import pagechain
import pagehistories
import pagekinds
from doc_blocks import ROOT
from figures import USUAL
from keeping import History, Results, Walk
from manifests import BRANCHES, RECIPES
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
    assert _lines(results, "| faster to save nothing new |") == [
        "| faster to save nothing new | the other 0.75 s | 1.50 s |"
    ]
    assert not _lines(results, "| faster to restore"), "2.00 s and 1.99 s are the same"
    assert not _lines(results, "| keeps less"), "only where others win"
    (whole,) = _lines(results, "| H: ")
    assert whole.endswith("| all 3 versions | 162 | 40.5 | 0.25 | - | 81.0: the other |")
    kinds = [line.split(" | ")[1] for line in _lines(results, "|  | ")]
    assert kinds[:2] == ["the first version", "all weights in fp32"]
    assert _lines(results, "| H | to save") == ["| H | to save a version | 3.00 | the other 1.50 | - | - |"]


def test_in_short_the_smallest_and_the_quickest_of_the_others_stand_beside_ours() -> None:
    ours, small, quick = _walk(1, 0.25, 1.0, 1.0), _walk(1, 0.5, 6.0, 6.0), _walk(1, 1.0, 2.0, 3.0)
    results = _results(stemmata=[ours], small=[small], quick=[quick])
    (whole,) = _lines(results, "| H: ")
    assert whole.endswith("| 81.0: the small |")
    assert _lines(results, "| H | to ") == [
        "| H | to save a version | 1.00 | - | the quick 2.00, the small 6.00 | - |",
        "| H | to bring one back | 1.00 | - | the quick 3.00, the small 6.00 | - |",
    ]


def test_a_walk_whose_copies_were_slower_is_named() -> None:
    slow, quick, third = (_walk(1, 0.5, 2.0, 1.0, copy=copy) for copy in (1.0, 0.4, 0.5))
    results = _results(stemmata=[slow], one=[quick], two=[third])
    page = benchpage.page(results, "benchmarks.json")
    assert "While the stemmata walked, the copies took 2.0 times" in page
    assert "While the two walked" not in page


def test_of_one_walk_what_copies_differ_by_means_nothing() -> None:
    copies = _walk(1, 1.0, 1.0, 1.0, copy=1.0)
    copies.rows[1] = replace(copies.rows[1], save=1.3, restore=1.6)
    copies.rows[-1] = replace(copies.rows[-1], save=1.0)
    other = [_walk(1, 0.5, 2.0, 2.0)]
    results = _results(stemmata=[_walk(1, 0.25, 2.5, 4.0)], cp=[copies], other=other)
    page = " ".join(benchpage.page(results, "benchmarks.json").split())
    assert "two times that differ by less than 30% of the lesser (to save) or 60% (to restore)" in page
    assert "the other" not in _lines(results, "| faster to save |")[0], "2.5 s is not 1.3 times 2.0 s"
    assert "the other 2.00 s" in _lines(results, "| faster to restore |")[0]


def test_of_several_walks_their_spread_tells_what_differs() -> None:
    ours = [_walk(number, 0.25, save, 5.0) for number, save in ((1, 3.0), (2, 4.0), (3, 5.0))]
    near = [_walk(number, 0.5, save, 5.0) for number, save in ((1, 1.0), (2, 1.5), (3, 3.5))]
    far = [_walk(number, 0.5, save, 5.0) for number, save in ((1, 1.0), (2, 1.5), (3, 2.5))]
    results = _results(stemmata=ours, near=near, far=far)
    (row,) = _lines(results, "| faster to save |")
    assert row == "| faster to save | the far 1.50 s (1.00-2.50) | 4.00 s (3.00-5.00) |"
    page = " ".join(benchpage.page(results, "benchmarks.json").split())
    assert "are called equal" not in page
    assert "Each tool walked 3 times" in page
    assert "told apart so by chance one time in 10" in page, (
        "2 of the 20 orders of three walks and three others"
    )


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
    assert [cell.strip(" *") for cell in row.split("|")][2:10] == [
        "81.0",
        "0.500",
        "2.00 (1.00-9.00)",
        "1.00",
        "1.00 (0.50-4.50)",
        "300",
        "200",
        "yes",
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


def test_the_best_of_each_column_is_bold() -> None:
    results = _results(stemmata=[_walk(1, 0.5, 3.0, 2.0)], other=[_walk(1, 0.6, 1.5, 4.0)])
    (row,) = _lines(results, "| the stemmata | **81")
    shown = "| the stemmata | **81.0** | **0.500** | 3.00 | **2.00** | 1.50 | **300** | **200** | yes |"
    assert row == shown
    (row,) = _lines(results, "| the other | 97")
    assert row == "| the other | 97.2 | 0.600 | **1.50** | 4.00 | **0.75** | **300** | **200** | yes |"


def test_ours_without_a_parent_told_is_not_one_of_the_others() -> None:
    walks = {"stemmata": [_walk(1, 0.25, 3.0, 3.0)], "stemmata-alone": [_walk(1, 0.3, 1.0, 1.0)]}
    results = _results(**walks, other=[_walk(1, 0.5, 2.0, 2.0)])
    short = [*_lines(results, "| H: "), *_lines(results, "| H | ")]
    assert short[0].endswith("81.0: the other |")
    assert not any("alone" in line for line in short)
    assert _lines(results, "| faster to save |") == ["| faster to save | the other 2.00 s | 3.00 s |"]
    page = benchpage.page(results, "benchmarks.json")
    assert "gets no such hint: it looks for tensors" in page
    assert "The others get no such hint." in page
    assert "### Where others win" not in benchpage.page(_results(**walks), "benchmarks.json")


def test_it_is_said_who_else_is_told_the_parents_and_how_a_chain_of_patches_is_read() -> None:
    walks = {"stemmata": [_walk(1, 0.25, 1, 1)], "zstd-patch": [_walk(1, 0.5, 1, 1)]}
    page = benchpage.page(_results(**walks), "benchmarks.json")
    assert "is told the same parents, the rest get no such hint." in page
    assert benchpage.pagewords.PATCHES in page


def test_what_was_left_aside_is_told_in_mb() -> None:
    walks = {"stemmata": [_walk(1, 0.5, 1, 1, aside=3 * MB)], "other": [_walk(1, 0.5, 1, 1, aside=100)]}
    page = benchpage.page(_results(**walks), "benchmarks.json")
    assert "Left aside of *MB kept*, in MB when a walk had ended: the stemmata 3.00.\n" in page
    assert benchpage.pagewords.ASIDE in page
    old = benchpage.page(_results(stemmata=[_walk(1, 0.5, 1, 1)]), "benchmarks.json")
    assert "when a walk had ended:" not in old
    assert benchpage.pagewords.ASIDE not in old


def test_a_save_in_a_process_that_is_open_stands_beside_that_of_a_process() -> None:
    results = _results(stemmata=[_walk(1, 0.5, 3.0, 1, opened=0.125)])
    page = " ".join(benchpage.page(results, "benchmarks.json").split())
    assert "saved adapter in 0.12 s; as a process of its own that took 3.00 s in the walks above:" in page
    assert "had saved before" not in benchpage.page(_results(other=[_walk(1, 1, 1, 1)]), "benchmarks.json")


def test_what_the_limit_of_chains_costs_is_told_by_the_version_that_it_costs_most() -> None:
    results = _results(stemmata=[_walk(1, 0.5, 1, 1)])
    whole = results.histories[0]
    part = History(
        "B",
        [dict(version) for version in whole.versions],
        {"stemmata": [_walk(1, 0.25, 1, 1)]},
    )
    assert pagechain.the_cost(results) == "", "no part was walked"
    results.histories.append(part)
    name = str(part.versions[-1]["name"])
    told = pagechain.the_cost(results)
    assert told.startswith("*")
    assert " MB in B, and " in told
    assert " MB in H, where the limit" in told
    assert told in benchpage.page(results, "benchmarks.json")
    part.walks["stemmata"] = whole.walks["stemmata"]
    assert pagechain.the_cost(results) == "", f"{name} takes as much in both"


def test_what_lies_in_the_folder_of_a_lora_is_told_where_it_is_known() -> None:
    results = _results(stemmata=[_walk(1, 0.5, 1, 1)])
    assert not _lines(results, "The folder of a LoRA")
    parts = {"weights": MB // 2, "tokenizer": MB, "rest": MB // 2}
    results.histories[0].versions[2].update(kind="adapter", parts=parts)
    (line,) = _lines(results, "The folder of a LoRA holds the tokenizer too")
    assert line.endswith(": adapter has 0.50 MB of adapter and 1.00 MB of tokenizer.")


def _with_large(results: Results) -> Results:
    """The walks of G, and one of each of some tools through versions that are four times as large."""
    small = replace(results.histories[0], name="G")
    versions = [{**v, "bytes": v["bytes"] * 4} for v in small.versions]
    walks = {}
    for key in ("stemmata", "cp"):
        (walk, *_) = small.walks[key]
        rows = [replace(row, bytes=row.bytes * 4, save_peak=330 * MB) for row in walk.rows]
        walks[key] = [replace(walk, rows=rows)]
    return replace(results, histories=[small, History("G4", versions, walks)])


def test_a_model_of_several_gb_has_a_section_with_its_memory_beside_that_of_a_smaller_one() -> None:
    walks = {key: [_walk(n, 0.5, 1, 1) for n in (1, 2)] for key in ("stemmata", "cp", "other")}
    results = _with_large(_results(**walks))
    page = benchpage.page(results, "benchmarks.json")
    section = page.split("## A model of 0.3 GB")[1].split("\n## ")[0]
    told = " ".join(section.split())
    assert "A version of G4 has 320 MB, 4.0 times as much as one of G." in told
    assert "330 MB of memory at most to save one, 1.1 times the 300 MB on G" in told
    assert "200 MB to bring one back, 1.0 times the 200 MB there" in told
    (row,) = [line for line in section.splitlines() if line.startswith("| the stemmata |")]
    assert row == "| the stemmata | **330** | 300 | **200** | 200 | yes |"
    assert "the other" not in section
    assert [line[:6] for line in page.splitlines() if line.startswith("| G")] == ["| G: t", *["| G | "] * 2]
    assert "the mean of two walks, on G4 of one;" in page
    assert not [name for name in benchpage.pictures(results) if name.startswith("G4")]


def test_how_to_repeat_it_names_the_histories_unless_they_are_the_whole_set() -> None:
    results = _results(stemmata=[_walk(1, 0.5, 1, 1)])
    assert _lines(results, "    .venv/bin/python")[0].endswith("bench/benchmarks.py --histories H --repeat 1")
    (history,) = results.histories
    whole = replace(results, histories=[replace(history, name=name) for name in USUAL])
    assert _lines(whole, "    .venv/bin/python")[0].endswith("bench/benchmarks.py --repeat 1")
    thrice = _results(stemmata=[_walk(number, 0.5, 1, 1) for number in (1, 2, 3)])
    assert _lines(thrice, "    .venv/bin/python")[0].endswith("bench/benchmarks.py --histories H")
    assert "L shows it for more steps" in " ".join(benchpage.page(whole, "benchmarks.json").split())


def test_every_history_is_described_and_its_kinds_have_words() -> None:
    assert {*RECIPES, *BRANCHES} - {"H2"} == set(pagehistories.ABOUT)
    assert (pagekinds.kind_of("long-1"), pagekinds.kind_of("rounded-base")) == (
        "all weights in fp32",
        "the first version, rounded to bf16",
    )
    assert pagekinds.kind_of("rounded-1") == "mixed precision, saved as bf16"
    assert pagekinds.kind_of("another-1") == "another"


def test_pictures_sort_by_what_is_kept_of_that_history() -> None:
    walks = {"stemmata": [_walk(1, 0.2, 1, 1)], "much": [_walk(1, 0.9, 1, 1)], "less": [_walk(1, 0.4, 1, 1)]}
    texts = [text.text for text in _texts(benchpage.pictures(_results(**walks))["H-bars.svg"])]
    rows = [text for text in texts if text and text.startswith("the ")]
    assert rows == ["the stemmata", "the less", "the much"]
    assert texts.count("s") == 2, "units stand at the axes"
    assert "MB" in texts


def test_leaders_are_no_lines_of_data_and_branches_are_marked() -> None:
    results = _results(stemmata=[_walk(1, 0.2, 1, 1)], other=[_walk(1, 0.9, 1, 1)])
    results.histories[0].versions[2]["name"] = "lora-r4"
    picture = benchpage.pictures(results)["H-growth.svg"]
    assert picture.count('class="leader"') == 2
    assert picture.count("<polyline") == picture.count('class="line ') == 2
    assert picture.count('class="branch"') == 2
    told = [text.text for text in _texts(picture)]
    assert "all weights in fp32" in told
    assert "LoRA" in told
    results.histories[0].versions.pop()
    results.histories[0].walks["stemmata"][0].rows.pop(2)
    assert pagekinds.branches(results.histories[0]) == [], "a chain is one line"


def _texts(picture: str) -> list[ET.Element]:
    return ET.fromstring(picture).findall("{http://www.w3.org/2000/svg}text")


def test_a_page_without_stemmata_compares_nothing() -> None:
    page = benchpage.page(_results(other=[_walk(1, 0.5, 1, 1)]), "benchmarks.json")
    assert "stemmata itself was not measured" in page
    assert "Where others win" not in page


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = _results(stemmata=[_walk(1, 0.25, 3.0, 2.0)], other=[_walk(1, 0.5, 1.5, 2.0)])
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results


@pytest.mark.parametrize("tools", [1, 4, 12])
def test_pictures_keep_their_text_inside(tools: int) -> None:
    names = ["stemmata", *(f"another-{i}" for i in range(tools - 1))]
    results = _results(**{name: [_walk(1, 0.9 + i / 1000, i + 1, i + 1)] for i, name in enumerate(names)})
    top = 78
    for name, picture in benchpage.pictures(results).items():
        height, texts = float(ET.fromstring(picture).attrib["height"]), _texts(picture)
        assert len(texts) > tools, name
        assert all(0 < float(text.attrib["y"]) < height for text in texts), name
        ends = [t for t in texts if re.search(r": [\d,.]+", t.text or "") and float(t.attrib["x"]) > 600]
        heights = [float(text.attrib["y"]) for text in ends]
        assert len(ends) == (tools if "growth" in name else 0)
        assert all(b - a >= 15.9 for a, b in pairwise(heights)), "labels overlap"
        assert all(y >= top for y in heights), "labels rise above the plot"


def test_equal_work_tells_how_far_apart_walks_are() -> None:
    walks = {
        "stemmata": [_walk(n, 0.5, 1.0, 1.0) for n in (1, 2)],
        "stemmata-gone": [_walk(n, 0.5, 1.5, 1.0) for n in (1, 2)],
        "other": [_walk(n, 0.5, 1.0, 1.0) for n in (1, 2)],
    }
    results = _results(**walks)
    assert "do the same work" not in benchpage.page(results, "benchmarks.json"), "it may have a parent"
    (history,) = results.histories
    versions = [{**history.versions[0], "parents": []}, *history.versions[1:]]
    results = replace(results, histories=[replace(history, versions=versions)])
    page = " ".join(benchpage.page(results, "benchmarks.json").split())
    low, high = (walks[key][0].rows[0].save for key in ("stemmata", "stemmata-gone"))
    assert f"and took {low:.2f} to {high:.2f} s for it" in page


def test_beside_who_rebuilds_parents_stands_stemmata_that_has_to_as_well() -> None:
    walks = {
        "stemmata": [_walk(1, 0.25, 1.0, 1.0)],
        "stemmata-gone": [_walk(1, 0.25, 2.0, 1.0)],
        "zstd-patch": [_walk(1, 0.5, 1.5, 1.0)],
    }
    assert _lines(_results(**walks), "| H | to ") == [
        "| H | to save a version | 1.00 | - | the zstd-patch 1.50 (the stemmata-gone: 2.00) | - |",
        "| H | to bring one back | 1.00 | - | - | the zstd-patch 1.00 |",
    ]


def test_what_versions_are_made_of_and_the_loss_before_and_after_stand_where_they_are_known() -> None:
    stored = {
        "base": {"bases": {"": 80}, "same": 0, "reads": [], "decodes": 1.0, "kept": {"rest": 40 * MB}},
        "epoch-1": {
            "bases": {"base": 96, "": 4},
            "same": 10 * MB,
            "reads": ["base"],
            "decodes": 1.88,
            "kept": {"embeddings": 2 * MB, "rest": 15 * MB},
        },
    }
    results = _results(stemmata=[_walk(1, 0.5, 1, 1, stored=stored)], other=[_walk(1, 0.5, 1, 1)])
    first, second, _ = results.histories[0].versions
    first.update(parents=[], contents={"rest": {"bytes": 30 * MB}, "loss": 0.75})
    parts = {"embeddings": {"bytes": 50 * MB, "changed": 0.999999, "moved": 0.0625}}
    parts["rest"] = {"bytes": 30 * MB, "changed": 0.5}
    second.update(parents=["base"], changed=0.8, contents={**parts, "loss": 0.5})
    assert _lines(results, "| base | - |")[0].endswith("| - | 0.750 |")
    assert _lines(results, "| epoch-1 | base |")[0].endswith("| 80.00% | 0.750 to 0.500 |")
    assert _lines(results, "| adapter | - |")[0].endswith("| - | - |"), "one row that lacks it"
    (made,) = [line for line in _lines(results, "| all weights in fp32 | 1 |") if "%" in line]
    row = "| all weights in fp32 | 1 | 50.0 | 30.0 | > 99.99% | 6.25% | 50.00% | 2.00 | 15.0 |"
    assert made == row
    assert _lines(results, "| epoch-1 | 10.0 |") == ["| epoch-1 | 10.0 | base | 1 | 1.9 | 2.00 | 15.0 |"]
    assert _lines(results, "| base | 0.00 |") == ["| base | 0.00 | nothing | 0 | 1.0 | 0.00 | 40.0 |"]


def test_what_a_save_takes_its_time_for_stands_where_it_was_measured() -> None:
    seconds = {"python": 0.01, "load": 0.15, "work": 0.04, "disk": 0.1}
    results = _results(stemmata=[_walk(1, 0.25, 1, 1, spent={"adapter": seconds})])
    assert _lines(results, "| adapter (2.00 MB)") == [
        "| adapter (2.00 MB) | 0.01 | 0.15 | 0.04 | 0.10 | 0.30 |"
    ]


def test_a_branch_has_its_own_lines_and_no_second_list_of_versions() -> None:
    results = _results(stemmata=[_walk(1, 0.25, 1, 1)], other=[_walk(1, 0.5, 1, 1)])
    (history,) = results.histories
    both = replace(results, histories=[history, replace(history, name="B")])
    lists = "| version | MB | what |"
    assert len(_lines(both, lists)) == len(_lines(results, lists)) == 1
    (whole,) = _lines(both, "| B: the versions of H in bf16")
    assert whole.endswith("| all 3 versions | 162 | 40.5 | 0.25 | - | 81.0: the other |")
    assert benchpage.pagewords.HALF[True] not in benchpage.page(both, "benchmarks.json")
    all_parts = [replace(history, name=name) for name in ("H", *BRANCHES)]
    page = benchpage.page(replace(results, histories=all_parts), "benchmarks.json")
    assert benchpage.pagewords.HALF[True] in page


def test_what_one_walk_cannot_tell_is_not_told_in_short() -> None:
    mine, alike, slow = ([_walk(1, 1.0, save, 1.0)] for save in (1.0, 1.02, 9.0))
    page = benchpage.page(_results(stemmata=mine, other=alike, restic=slow), "benchmarks.json")
    row = next(line for line in page.splitlines() if "| to save a version |" in line)
    faster, slower, neither = (cell.strip() for cell in row.split("|")[4:7])
    assert faster == "-"
    assert "9.00" in slower
    assert "1.02" not in slower
    assert "1.02" in neither
