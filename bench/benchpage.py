"""The page of benchmarks, made of results alone: words, tables, pictures. See keeping.Results.

Owns what is said of figures. No figure is typed here: sentences are built from what was measured, and where
another tool does better, it is named with both figures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import charts
import pagewords
from keeping import History, Results
from walking import Row, Walked

OURS = "stemmata"
_EQUAL = 1.05
"""Figures that differ by less are called equal: two walks of one tool differ by as much."""


@dataclass(frozen=True)
class Of:
    """One tool on one history: what its walks come to."""

    key: str
    title: str
    walked: Walked

    def mean(self, field: str) -> float:
        return self.walked.total(field) / len(self.walked.rows)

    @property
    def kept(self) -> float:
        return self.walked.total("kept")

    def most(self, field: str) -> float:
        return max(getattr(row, field) for row in (*self.walked.rows, self.walked.again))


@dataclass(frozen=True)
class Measure:
    """One figure by which tools are compared; less is better."""

    name: str
    better: str
    value: Callable[[Of], float]
    show: Callable[[float], str]


MEASURES = (
    Measure("bytes kept", "keeps less", lambda one: one.kept, lambda v: f"{_mb(v)} MB"),
    Measure("saving", "faster to save", lambda one: one.mean("save"), lambda v: f"{v:.2f} s"),
    Measure("restoring", "faster to restore", lambda one: one.mean("restore"), lambda v: f"{v:.2f} s"),
    Measure(
        "saving what is there already",
        "faster to save what is there already",
        lambda one: one.walked.again.save,
        lambda v: f"{v:.2f} s",
    ),
    Measure(
        "memory to save",
        "less memory to save",
        lambda one: one.most("save_peak"),
        lambda v: f"{v / 2**20:,.0f} MiB",
    ),
    Measure(
        "memory to restore",
        "less memory to restore",
        lambda one: one.most("restore_peak"),
        lambda v: f"{v / 2**20:,.0f} MiB",
    ),
)


def write(results: Results, docs: Path, file: Path) -> None:
    """The page in `docs`, its pictures in `docs`/benchmarks; `file` is where the results lie."""
    folder = docs / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, picture in pictures(results).items():
        (folder / name).write_text(picture, encoding="utf-8")
    (docs / "benchmarks.md").write_text(page(results, os.path.relpath(file, docs)), encoding="utf-8")


def inexact(results: Results) -> list[str]:
    """What came back with other bytes."""
    return [
        f"{history.name}, {one.title}: {row.name} came back with other bytes"
        for history in results.histories
        for one in tools_of(results, history)
        for row in (*one.walked.rows, one.walked.again)
        if not row.exact
    ]


def tools_of(results: Results, history: History) -> list[Of]:
    """Those that walked the history, the smallest store first."""
    found = [
        Of(key, results.tools[key]["title"], Walked.of(key, [w.rows for w in walks], []))
        for key, walks in history.walks.items()
    ]
    return sorted(found, key=lambda one: one.kept)


# --- the page ------------------------------------------------------------------------------------


def page(results: Results, file: str) -> str:
    """The whole page; `file` is the way from it to the results."""
    lines = [
        pagewords.HEAD.format(name=Path(file).name, file=file),
        "## In short",
        "",
        *(f"- {in_short(results, history)}" for history in results.histories),
        "",
        *the_measured(results),
        pagewords.PROCEDURE.format(walks=the_walks(results)),
    ]
    for history in results.histories:
        lines += of_history(results, history)
    names = [history.name for history in results.histories]
    options = "" if names == ["H", "G"] else f" --histories {' '.join(names)}"
    return "\n".join([*lines, pagewords.REPETITION.format(options=options)])


def in_short(results: Results, history: History) -> str:
    tools = tools_of(results, history)
    ours = next((one for one in tools if one.key == OURS), None)
    whole = f"**{history.name}**, {len(history.versions)} versions, {_mb(history.bytes)} MB"
    if ours is None:
        return f"{whole}: stemmata itself was not measured."
    told = f"{whole}: stemmata keeps {_mb(ours.kept)} MB ({ours.kept / history.bytes:.2f} of the bytes)"
    others = [one for one in tools if one is not ours]
    if not others:
        return f"{told}. Nothing else was measured."
    told += f"; of the others {others[0].title} keeps least, {_mb(others[0].kept)} MB. "
    saves, restores = (_ranked(tools, ours, measure) for measure in MEASURES[1:3])
    return f"{told}Of {len(tools)} ways it is {saves} to save a version and {restores} to bring one back."


def _ranked(tools: Sequence[Of], ours: Of, measure: Measure) -> str:
    """`the 3rd fastest (0.80 s; cp -r: 0.10 s)`."""
    order = sorted(tools, key=measure.value)
    at, first = order.index(ours) + 1, order[0]
    figure = measure.show(measure.value(ours))
    if at == 1:
        return f"the fastest ({figure})"
    ending = {1: "st", 2: "nd", 3: "rd"}.get(at % 10 if at // 10 != 1 else 0, "th")
    return f"the {at}{ending} fastest ({figure}; {first.title}: {measure.show(measure.value(first))})"


def _mb(size: float) -> str:
    """Bytes in MB, three figures of them."""
    decimals = 0 if size >= 100e6 else 1 if size >= 10e6 else 2
    return f"{size / 1e6:,.{decimals}f}"


def the_measured(results: Results) -> list[str]:
    walks = [walk for history in results.histories for walks in history.walks.values() for walk in walks]
    first, last = min(walks, key=lambda w: w.began), max(walks, key=lambda w: w.began)
    commits = sorted({walk.commit for walk in walks})
    busiest = max(walk.load[0] for walk in walks)
    lines = ["## What was measured", "", "| history | versions | MB | what |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {h.name} | {len(h.versions)} | {_mb(h.bytes)} | {_about(h.name)} |" for h in results.histories
    ]
    lines += ["", "| tool | version | how it is used |", "| --- | --- | --- |"]
    lines += [f"| {tool['title']} | {tool['version']} | {tool['how']} |" for tool in results.tools.values()]
    lines += ["", "| machine | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in results.machine.items()]
    lines += [
        f"| measured | {first.began} to {last.began} UTC, commit {', '.join(commits)} |",
        f"| load average | {first.load[0]:.1f} when the first walk began, {last.load[1]:.1f} when the last "
        f"had ended, at most {busiest:.1f} when one began |",
        "",
    ]
    return lines


def _about(name: str) -> str:
    return pagewords.ABOUT.get(name, pagewords.ELSE).replace("\n", " ")


def the_walks(results: Results) -> str:
    """How many walks the figures are of, as a sentence."""
    counts = sorted({len(walks) for h in results.histories for walks in h.walks.values()})
    if counts == [1]:
        return "The figures are of one walk of each tool."
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"A figure is the median over {many} walks of each tool, of memory the most."


def of_history(results: Results, history: History) -> list[str]:
    tools = tools_of(results, history)
    name = history.name
    lines = [f"## {name}: {len(history.versions)} versions, {_mb(history.bytes)} MB", ""]
    lines += [
        f"![What each tool keeps of {name}, and its seconds per save and restore](benchmarks/{name}-bars.svg)"
    ]
    lines += ["", *the_table(history, tools)]
    left_out = [tool["title"] for key, tool in results.tools.items() if key not in history.walks]
    lines += [f"Not measured on {name}: {', '.join(left_out)}.", ""] if left_out else [""]
    lines += [f"![How the stores grow over the versions of {name}](benchmarks/{name}-growth.svg)", ""]
    ours = next((one for one in tools if one.key == OURS), None)
    if ours is not None:
        lines += [*the_others(name, ours, [one for one in tools if one is not ours]), ""]
    lines += ["<details><summary>Version by version</summary>", ""]
    for title, told in (
        ("MB kept", lambda row: _mb(row.kept)),
        ("Seconds to save", lambda row: f"{row.save:.2f}"),
        ("Seconds to restore", lambda row: f"{row.restore:.2f}"),
    ):
        lines += [f"{title}:", "", *by_version(history, tools, told), ""]
    return [*lines, "</details>", ""]


def the_table(history: History, tools: Sequence[Of]) -> list[str]:
    heads = ["tool", "MB kept", "of the bytes", "s per save", "x", "s again", "s per restore", "x"]
    heads += ["MiB to save", "MiB to restore", "byte for byte"]
    columns: list[list[tuple[float, str]]] = []
    for one in tools:
        copy = one.walked.total("copy")
        exact = all(row.exact for row in (*one.walked.rows, one.walked.again))
        columns.append(
            [
                (one.kept, _mb(one.kept)),
                (one.kept, f"{one.kept / history.bytes:.3f}"),
                (one.mean("save"), f"{one.mean('save'):.2f}"),
                (one.walked.total("save") / copy, f"{one.walked.total('save') / copy:.1f}"),
                (one.walked.again.save, f"{one.walked.again.save:.2f}"),
                (one.mean("restore"), f"{one.mean('restore'):.2f}"),
                (one.walked.total("restore") / copy, f"{one.walked.total('restore') / copy:.1f}"),
                (one.most("save_peak"), f"{one.most('save_peak') / 2**20:,.0f}"),
                (one.most("restore_peak"), f"{one.most('restore_peak') / 2**20:,.0f}"),
                (0.0 if exact else 1.0, "yes" if exact else "**no**"),
            ]
        )
    least = [min(value for value, _ in column) for column in zip(*columns, strict=True)]
    lines = [f"| {' | '.join(heads)} |", "| --- " + "| ---: " * (len(heads) - 2) + "| --- |"]
    for one, cells in zip(tools, columns, strict=True):
        told = [
            f"**{text}**" if value == best and at < len(cells) - 1 else text
            for at, ((value, text), best) in enumerate(zip(cells, least, strict=True))
        ]
        lines.append(f"| {f'**{one.title}**' if one.key == OURS else one.title} | {' | '.join(told)} |")
    return [*lines, "", "The best of each column is bold."]


def the_others(name: str, ours: Of, others: Sequence[Of]) -> list[str]:
    """Where others win, and where they do not, in words."""
    lines = [f"### Where others win on {name}", "", "| tool | is better than stemmata | stemmata is better |"]
    lines.append("| --- | --- | --- |")
    for one in others:
        theirs, mine = [], []
        for measure in MEASURES:
            they, we = measure.value(one), measure.value(ours)
            if they * _EQUAL < we:
                theirs.append(f"{measure.better}: {measure.show(they)} against {measure.show(we)}")
            elif we * _EQUAL < they:
                mine.append(f"{measure.better}: {measure.show(we)} against {measure.show(they)}")
        lines.append(f"| {one.title} | {'<br>'.join(theirs) or '-'} | {'<br>'.join(mine) or '-'} |")
    return [*lines, "", pagewords.EQUAL]


def by_version(history: History, tools: Sequence[Of], told: Callable[[Row], str]) -> list[str]:
    lines = [f"| version | MB | {' | '.join(one.title for one in tools)} |"]
    lines.append("| --- " + "| ---: " * (len(tools) + 1) + "|")
    for at, version in enumerate([*history.versions, None]):
        rows = [one.walked.again if version is None else one.walked.rows[at] for one in tools]
        cells = [told(row) for row in rows]
        lines.append(f"| {rows[0].name} | {rows[0].bytes / 1e6:.1f} | {' | '.join(cells)} |")
    return lines


# --- pictures ------------------------------------------------------------------------------------


def pictures(results: Results) -> dict[str, str]:
    """File name to SVG."""
    drawn = {}
    for history in results.histories:
        tools = tools_of(results, history)
        ours = results.tools[OURS]["title"] if OURS in results.tools else ""
        whole = f"{len(history.versions)} versions, {_mb(history.bytes)} MB"
        decimals = 0 if history.bytes >= 100e6 else 2
        drawn[f"{history.name}-bars.svg"] = charts.bars(
            f"{history.name}: {whole}",
            "Less is better. cp -r is what it takes without a tool.",
            [one.title for one in tools],
            [
                charts.Panel("MB kept", [one.kept / 1e6 for one in tools], decimals),
                charts.Panel("seconds per save", [one.mean("save") for one in tools], 2),
                charts.Panel("seconds per restore", [one.mean("restore") for one in tools], 2),
            ],
            ours,
        )
        drawn[f"{history.name}-growth.svg"] = charts.lines(
            f"{history.name}: MB in the store after each version",
            f"{whole}. Stores that end close to each other share a label.",
            [str(version["name"]) for version in history.versions],
            [charts.Line(one.title, _grown(one.walked.rows)) for one in tools],
            decimals,
            ours,
        )
    return drawn


def _grown(rows: Sequence[Row]) -> list[float]:
    grown, total = [], 0.0
    for row in rows:
        total += row.kept / 1e6
        grown.append(total)
    return grown
