"""Walks that were measured, kept as files: an interrupted run goes on, and a page is made of them.

Owns what makes a kept walk still good: the same program, the same history, the same machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from manifests import Entry
from measuring import ROOT, commit, copy_and_sync, folder_bytes, parts, timed
from walking import AGAIN, STORE, Row, Tool, walk

METHOD = 5
"""How a walk is measured, counted up with every change of it.

1: a store was not read before each time, and no copies were made before a walk. 2: DVC's state outlived a
walk. 3: git-lfs was given a version in the second in which it saved it, or not, as chance would have it. 4:
each tool followed the same one in every round, and had the memory that this one had left.
"""
_LAYOUT = 6
"""Of a kept walk: counted up with what its file says and with METHOD. Older ones are not read."""
_SMALL = 10
"""A version is small that goes so many times into the largest: its save is mostly what every save takes."""
_STARTS = 5
"""Starts of a program of which the median counts."""


class Measured(Tool, Protocol):
    """A tool that can say what it is."""

    how: str
    """The commands it is used by, in a line."""

    def install(self) -> None: ...

    def version(self) -> str: ...

    def start(self) -> str:
        """Start the program for next to nothing. Returns the command, in words."""

    def opened(self, entries: Sequence[Entry], work: Path) -> float | None:
        """Seconds to save the last of `entries` in one process after the others; None if it has no such."""

    def stored(self, entries: Sequence[Entry]) -> dict[str, dict[str, Any]] | None:
        """What its store has of each version: see leanings.py; None if nobody can look into it."""

    def spent(self, entries: Sequence[Entry], work: Path) -> dict[str, float] | None:
        """What the save of the last of `entries` after the others spends its time on: see spending.py."""


@dataclass(frozen=True)
class Conditions:
    """What a walk was measured of. Walks of one page differ in none of these."""

    tool: str
    title: str
    how: str
    version: str
    sources: str
    """A digest of the program's own sources where they change without its version; else empty."""
    history: str
    versions: list[dict[str, object]]
    """name, bytes, what, kind, changed, parents, parts and contents of each, parents first."""
    machine: dict[str, str]


@dataclass(frozen=True)
class Walk:
    number: int
    commit: str
    """Of this project, as git describes it."""
    began: str
    load: tuple[float, float]
    """The load average when it began and when it had ended."""
    rows: list[Row]
    method: int = 1
    """See METHOD."""
    starting: str = ""
    """The command that `start` is of; empty where it was not measured."""
    start: float = 0.0
    """Seconds from the start of that process to its end."""
    aside: int | None = None
    """Bytes that lay in the tool's home when the walk had ended and are not counted as kept: caches, a work
    tree. None where it was not measured."""
    opened: float | None = None
    """Seconds to save the smallest version in a process that has saved before. None where there is no such
    process, or no version that is small."""
    stored: dict[str, dict[str, Any]] | None = None
    """See leanings.py. None where nobody can look into the store."""
    spent: dict[str, dict[str, float]] | None = None
    """By version what its save spends its time on: see spending.py."""


class Shelf:
    """One file for each walk of each tool through each history."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def get(self, now: Conditions, number: int) -> Walk | None:
        """The walk, unless it was not measured or under other conditions."""
        kept = _read(self._file(now.history, now.tool, number))
        return _walk(kept["walk"]) if kept and kept["conditions"] == asdict(now) else None

    def put(self, now: Conditions, walked: Walk) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        file = self._file(now.history, now.tool, walked.number)
        new = file.with_suffix(".new")
        told = {"layout": _LAYOUT, "conditions": asdict(now), "walk": asdict(walked)}
        new.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        new.replace(file)

    def newest(self, histories: Sequence[str], tools: Sequence[str]) -> list[tuple[Conditions, Walk]]:
        """All walks that are kept; of walks under several conditions, those under the last that were met."""
        found: list[tuple[Conditions, Walk]] = []
        for history in histories:
            for tool in tools:
                files = sorted(self._home.glob(f"{history}-{tool}-[0-9]*.json"))
                kept = [one for one in map(_read, files) if one]
                kept.sort(key=lambda one: one["walk"]["began"])
                same = [one for one in kept if one["conditions"] == kept[-1]["conditions"]]
                found += [(Conditions(**one["conditions"]), _walk(one["walk"])) for one in same]
        return found

    def _file(self, history: str, tool: str, number: int) -> Path:
        return self._home / f"{history}-{tool}-{number}.json"


def measure(tool: Measured, entries: Sequence[Entry], work: Path, number: int) -> Walk:
    began, before = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}", os.getloadavg()[0]
    _settle(entries, work / "settling")
    tool.start()
    rows = walk(tool, entries, work)
    aside = folder_bytes(work / STORE) - tool.store_bytes()
    told: list[str] = []
    start = median(timed(lambda: told.append(tool.start())) for _ in range(_STARTS))
    small = smallest(entries)
    opened = tool.opened(small, work / "opened") if small else None
    found = tool.stored([entry for entry in entries if entry.name != AGAIN])
    asked = {chain[-1].name: tool.spent(chain, work / "spent") for chain in (small, entries[:2]) if small}
    spent = {name: seconds for name, seconds in asked.items() if seconds} or None
    load = (before, os.getloadavg()[0])
    return Walk(number, commit(), began, load, rows, METHOD, told[0], start, aside, opened, found, spent)


def smallest(entries: Sequence[Entry]) -> list[Entry]:
    """The smallest version after all that it comes from; nothing if it has no parent, or is not small."""
    named = {entry.name: entry for entry in entries}
    last = min(entries, key=lambda entry: entry.bytes)
    if not last.parents or last.bytes * _SMALL > max(entry.bytes for entry in entries):
        return []
    wanted = [last]
    for entry in wanted:  # which grows meanwhile
        wanted += [named[parent] for parent in entry.parents if named[parent] not in wanted]
    return [entry for entry in entries if entry in wanted]


def _settle(entries: Sequence[Entry], spare: Path) -> None:
    """Copy the whole history once.

    In a virtual machine the first use of a page of memory ever is the dearest: no walk is to pay for it, and
    least of all always that of the tool that comes first.
    """
    spare.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        copy_and_sync(entry.folder, spare / entry.name)
    shutil.rmtree(spare)


def conditions(
    key: str,
    tool: Measured,
    history: str,
    entries: Sequence[Entry],
    machine: dict[str, str],
    contents: Mapping[str, object] | None = None,
) -> Conditions:
    """`contents`: what contents.py tells of each version."""
    versions = [
        {
            "name": e.name,
            "bytes": e.bytes,
            "what": e.what,
            "kind": e.kind,
            "changed": e.changed,
            "parents": list(e.parents),
            "parts": parts(e.folder),
            "contents": (contents or {}).get(e.name),
        }
        for e in entries
        if e.name != AGAIN
    ]
    sources = _sources() if key.startswith("stemmata") else ""
    return Conditions(key, tool.title, tool.how, tool.version(), sources, history, versions, machine)


def _sources() -> str:
    """A digest of stemmata's code: its version says little while it is being worked on."""
    whole = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*")):
        if re.search(r"\.(py|c|h|so)$", path.name):
            whole.update(path.read_bytes())
    return whole.hexdigest()[:12]


# --- the file that is committed ------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    name: str
    versions: list[dict]
    walks: dict[str, list[Walk]]
    """By the tool's key."""

    @property
    def bytes(self) -> int:
        return sum(version["bytes"] for version in self.versions)


@dataclass(frozen=True)
class Results:
    """What one page is made of, and nothing else."""

    machine: dict[str, str]
    tools: dict[str, dict[str, str]]
    """title, how and version of each."""
    histories: list[History]

    @classmethod
    def of(cls, kept: Sequence[tuple[Conditions, Walk]]) -> Results:
        if len({json.dumps(now.machine) for now, _ in kept}) > 1:
            raise SystemExit("walks on several machines, or states of one, are kept: measure anew")
        tools: dict[str, dict[str, str]] = {}
        histories: dict[str, History] = {}
        for now, walked in kept:
            tools[now.tool] = {"title": now.title, "how": now.how, "version": now.version}
            history = histories.setdefault(now.history, History(now.history, now.versions, {}))
            history.walks.setdefault(now.tool, []).append(walked)
        return cls(kept[-1][0].machine, tools, list(histories.values()))

    @classmethod
    def read(cls, file: Path) -> Results:
        told = json.loads(file.read_text(encoding="utf-8"))
        histories = [
            History(h["name"], h["versions"], {k: [_walk(w) for w in ws] for k, ws in h["walks"].items()})
            for h in told["histories"]
        ]
        return cls(told["machine"], told["tools"], histories)

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1, sort_keys=False) + "\n", encoding="utf-8")


def _walk(told: dict) -> Walk:
    rows = [Row(**row) for row in told["rows"]]
    return Walk(**{**told, "load": (told["load"][0], told["load"][1]), "rows": rows})


def _read(file: Path) -> dict:
    """A kept walk as it was written; empty if there is none of this layout."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return told if told.get("layout") == _LAYOUT else {}
