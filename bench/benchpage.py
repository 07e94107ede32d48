"""The page of benchmarks, made of results alone: words, tables, pictures. See keeping.Results.

Owns what is said of figures. No measured figure is typed here: sentences are built from what was measured,
and where another tool does better, it is named with both figures. What older results lack is left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pagewords
from figures import (
    ALONE,
    GONE,
    LARGE,
    MEASURES,
    ONCE,
    OURS,
    USUAL,
    USUAL_WALKS,
    Figure,
    Of,
    less,
    mb,
    noise_of,
    others_of,
    ours_of,
    tools_of,
)
from keeping import History, Results, Walk
from pagechain import the_chain, the_cost, the_lines
from pagehistories import the_histories
from pagelarge import the_large
from pagepictures import pictures
from pageshort import in_short
from pagetables import by_kind, by_version, left_aside, table, the_noise, the_tables
from pagetools import KNOWN, UNKNOWN
from pageweights import the_leaning, the_weights
from walking import AGAIN

_IDLE = 1.0
"""Load average below which nothing else ran that counts: the look into the histories before leaves some."""


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


# --- the page ------------------------------------------------------------------------------------


def page(results: Results, file: str) -> str:
    """The whole page; `file` is the way from it to the results."""
    walks = _walks(results)
    usual = [history for history in results.histories if history.name != LARGE]
    lines = [
        pagewords.HEAD.format(name=Path(file).name, file=file),
        "## In short",
        "",
        *in_short(results),
        pagewords.OURS.format(told=the_told(results)),
        *the_histories(results),
        *the_tools(results),
        *the_machine(results),
        pagewords.PROCEDURE.format(
            walks=the_walks(walks, results),
            again=AGAIN,
            warm=pagewords.WARM[min(max(pagewords.WARM), *(walk.method for walk in walks))],
            files=pagewords.FILES[min(walk.method for walk in walks) > 3],
            turns=pagewords.TURNS[max(min(pagewords.TURNS), *(walk.method for walk in walks))],
            aside=pagewords.ASIDE if all(walk.aside is not None for walk in walks) else "",
        ),
    ]
    for history in usual:
        lines += of_history(results, history)
    lines += the_large(results)
    if OURS in results.tools:
        lines.append(
            pagewords.CHAIN.format(
                example=the_chain(results), cost=the_cost(results), lines=the_lines(results)
            )
        )
    lines += the_starts(results)
    names = [history.name for history in results.histories]
    options = "" if set(names) == set(USUAL) else f" --histories {' '.join(names)}"
    most_walks = max(walk.number for walk in walks)
    options += f" --repeat {most_walks}" if most_walks != USUAL_WALKS else ""
    return "\n".join([*lines, pagewords.REPETITION.format(options=options)])


def _walks(results: Results) -> list[Walk]:
    return [walk for h in results.histories for walks in h.walks.values() for walk in walks]


def the_told(results: Results) -> str:
    """Which tools are told the parents."""
    keys = [OURS, *(key for key in (GONE, ALONE) if key in results.tools)]
    keys.append("zstd-patch" if "zstd-patch" in results.tools else "")
    return " ".join(pagewords.TOLD[key] for key in keys)


def the_tools(results: Results) -> list[str]:
    rows = []
    for key, tool in results.tools.items():
        known = KNOWN.get(key, UNKNOWN)
        rows.append(
            [tool["title"], tool["version"], known.origin, tool["how"], known.setup, known.documentation]
        )
    patches = [pagewords.PATCHES, ""] if "zstd-patch" in results.tools else []
    heads = ["tool", "version", "from", "how it is used", "set up", "as its documentation has it"]
    return ["## The tools and the machine", "", *table(heads, rows), "", pagewords.TOOLS, "", *patches]


def the_machine(results: Results) -> list[str]:
    walks = _walks(results)
    first, last = min(walks, key=lambda w: w.began), max(walks, key=lambda w: w.began)
    commits = sorted({walk.commit for walk in walks})
    busiest = max(max(walk.load) for walk in walks)
    rows = [[name, value.replace("GiB", "GiB (2^30 bytes)")] for name, value in results.machine.items()]
    rows += [
        ["measured", f"{first.began} to {last.began} UTC, commit {', '.join(commits)}"],
        [
            "load average",
            f"{first.load[0]:.1f} when the first walk began, {last.load[1]:.1f} when the last had ended, at "
            f"most {busiest:.1f}; a walk adds its own to it{_beside(first.load[0])}",
        ],
    ]
    return [*table(["machine", ""], rows), ""]


def _beside(load: float) -> str:
    """What a load of the machine before anything was measured means."""
    if load < _IDLE:
        return ""
    return (
        ". The load before the first walk may be of what ran just before it, or of other work: times may be "
        "too long by that"
    )


def the_walks(walks: Sequence[Walk], results: Results) -> str:
    """How many walks the figures are of, as a sentence."""
    most_walks = max(walk.number for walk in walks)
    if most_walks == 1:
        return "The figures are of one walk of each tool."
    once = " and ".join(history.name for history in results.histories if history.name in ONCE)
    what = "mean of two" if most_walks == 2 else f"median of {most_walks}"
    both = "both follow" if most_walks == 2 else "least and most follow"
    return (
        f"A figure is the {what} walks{f', on {once} of one' if once else ''}; {both} in brackets where "
        "they read otherwise. Each is taken by itself: a total need not be the exact sum of its parts."
    )


def of_history(results: Results, history: History) -> list[str]:
    tools = tools_of(results, history)
    name = history.name
    words = pagewords.SHORT.get(name, "")
    lines = [f"## {name}: {len(history.versions)} versions, {mb(history.bytes)} MB", ""]
    lines += [f"{words[0].upper()}{words[1:]}.", ""] if words else []
    lines += [
        f"![What each tool keeps of {name}, and its seconds per save and restore](benchmarks/{name}-bars.svg)"
    ]
    lines += [
        "",
        *the_tables(history, tools),
        "",
        *the_noise(history, tools),
        "",
        *left_aside(history, tools),
    ]
    left_out = [tool["title"] for key, tool in results.tools.items() if key not in history.walks]
    lines += [f"Not measured on {name}: {', '.join(left_out)}.", ""] if left_out else []
    lines += [f"![How the stores grow over the versions of {name}](benchmarks/{name}-growth.svg)", ""]
    lines += ["By kind, MB kept:", "", *by_kind(history, tools), ""]
    lines += the_weights(history)
    ours, others = ours_of(tools), others_of(tools)
    if ours and others:
        lines += [*the_others(history, ours, others), ""]
    lines += ["<details><summary>Version by version</summary>", ""]
    lines += [f"`{AGAIN}` is {_last_large(history)} saved once more under a new name.", ""]
    lines += the_leaning(history)
    for title, told in (
        ("MB kept", lambda row: mb(row.kept)),
        ("Seconds to save", lambda row: f"{row.save:.2f}"),
        ("Seconds to restore", lambda row: f"{row.restore:.2f}"),
    ):
        lines += [f"{title}:", "", *by_version(history, tools, told), ""]
    return [*lines, "</details>", ""]


def _last_large(history: History) -> str:
    """See walking.chosen."""
    largest = max(version["bytes"] for version in history.versions)
    return [str(v["name"]) for v in history.versions if v["bytes"] * 2 > largest][-1]


def the_others(history: History, ours: Of, others: Sequence[Of]) -> list[str]:
    """Where others win."""
    noise, rows = noise_of(history), []
    for measure in MEASURES:
        mine = ours.figure(measure.value)
        better = [(one.title, one.figure(measure.value)) for one in others]
        better = [(title, theirs) for title, theirs in better if less(theirs, mine, measure, noise)]
        better.sort(key=lambda each: each[1].median)
        told = [f"{title} {theirs.told(measure.show)}" for title, theirs in better]
        if told:
            rows.append([measure.name, "; ".join(told), mine.told(measure.show)])
    several = all(len(one.walks) > 1 for one in (ours, *others))
    equal = pagewords.EQUAL[2 if several else 1].format(save=noise.save, restore=noise.restore)
    return [
        f"### Where others win on {history.name}",
        "",
        *(table(["", "better than stemmata", "stemmata"], rows) if rows else ["Nowhere."]),
        "",
        equal,
    ]


def the_starts(results: Results) -> list[str]:
    """The start of each tool, where it was measured, and the save of the smallest version."""
    history = results.histories[0]
    at = min(range(len(history.versions)), key=lambda i: history.versions[i]["bytes"])
    name, size = history.versions[at]["name"], history.versions[at]["bytes"]
    measured = any(walk.starting for walks in history.walks.values() for walk in walks)
    heads = ["tool", *(["started by", "s to start"] if measured else [])]
    heads += [f"s to save {name} ({mb(size)} MB)", "s to restore it"]
    rows = []
    for one in tools_of(results, history):
        walks = history.walks[one.key]
        begun = Figure([walk.start for walk in walks]).told("{:.2f}".format)
        cells = [f"`{walks[0].starting}`", begun] if measured else []
        for field in ("save", "restore"):
            seconds = Figure([getattr(walk.rows[at], field) for walk in one.walks])
            cells.append(seconds.told("{:.2f}".format))
        rows.append([one.title, *cells])
    lines = [pagewords.STARTS, *([pagewords.LOADS, ""] if measured else [])]
    lines += the_spent(history)
    lines += the_opened(history, at)
    return [*lines, *table(heads, rows, range(len(heads) - (3 if measured else 2), len(heads))), ""]


def the_spent(history: History) -> list[str]:
    """What a save spends its time on, where it was measured."""
    walks = [walk.spent for walk in history.walks.get(OURS, []) if walk.spent]
    sizes = {version["name"]: version["bytes"] for version in history.versions}
    parts = {"python": "start of Python", "load": "loading modules", "work": "the work itself"}
    parts |= {"disk": "sync", "whole": "all"}
    rows = []
    for name in walks[0] if walks else ():
        found = [{**walk[name], "whole": sum(walk[name].values())} for walk in walks if name in walk]
        seconds = [Figure([one[part] for one in found]).told("{:.2f}".format) for part in parts]
        rows.append([f"{name} ({mb(sizes.get(name, 0))} MB)", *seconds])
    if not rows:
        return []
    return [pagewords.SPENT, "", *table(["s to save", *parts.values()], rows, range(1, 6)), ""]


def the_opened(history: History, at: int) -> list[str]:
    """What the save of a small version takes without the start of a process, where it was measured."""
    walks = [walk for walk in history.walks.get(OURS, []) if walk.opened is not None]
    if not walks:
        return []
    show = "{:.2f}".format
    opened, whole = (Figure([walk.opened or 0.0 for walk in walks]), Figure([w.rows[at].save for w in walks]))
    words = {"name": history.versions[at]["name"], "opened": opened.told(show), "whole": whole.told(show)}
    return [pagewords.OPENED.format(**words), ""]
