"""Walks a history with one tool: every version saved, then every version brought back and compared.

Owns the procedure, the same for stemmata and for its peers: the folder and all that the tool has written are
read into the page cache before a time begins, it ends when `sync` has returned, and `cp -r` of the same
folder is timed before each save.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from manifests import Entry, branch
from measuring import copy_and_sync, same_bytes, to_disk, warm

OUT = "out"
STORE = "store"
"""The tool's home, in the folder that a walk has for itself."""
AGAIN = "again"
"""The last large version saved once more: nothing of it is new. Not in the sums."""


class Tool(Protocol):
    """Something that keeps versions. Only `save` and `restore` are timed."""

    title: str

    def prepare(self, home: Path) -> None:
        """Make an empty store in the empty folder `home`."""

    def stage(self, entry: Entry) -> None:
        """Put the version where the tool wants to find it, if it has a wish: trainings write there."""

    def save(self, entry: Entry) -> None: ...

    def restore(self, entry: Entry) -> Path:
        """Bring a version back, to OUT in `home`, which is absent, or to the tool's own place."""

    def store_bytes(self) -> int: ...

    def peak(self) -> int:
        """The most memory of any of its processes since the last call, in bytes; 0 if not known."""


class WalksAlone:
    """A tool of which nothing is asked beside its walks: see `keeping.Measured`."""

    def opened(self, entries: Sequence[Entry], work: Path) -> float | None:  # noqa: ARG002
        return None

    def stored(self, entries: Sequence[Entry]) -> dict[str, dict[str, Any]] | None:  # noqa: ARG002
        return None

    def spent(self, entries: Sequence[Entry], work: Path) -> dict[str, float] | None:  # noqa: ARG002
        return None


@dataclass(frozen=True)
class Row:
    """What one version cost. Times in seconds, sizes and peaks in bytes."""

    name: str
    bytes: int
    kept: int
    save: float
    restore: float
    copy: float
    save_peak: int
    restore_peak: int
    exact: bool


def chosen(entries: Sequence[Entry], only: str = "*") -> list[Entry]:
    """Those whose names fit, parents that do not fit left out, and the last large one `AGAIN`."""
    found = branch(entries, only)
    if not found:
        raise SystemExit(f"no version fits {only!r}; there are {', '.join(e.name for e in entries)}")
    last = [entry for entry in found if entry.bytes * 2 > max(e.bytes for e in found)][-1]
    return [*found, replace(last, name=AGAIN, parents=(last.name,))]


def walk(tool: Tool, entries: Sequence[Entry], work: Path) -> list[Row]:
    """One walk with a new store in `work`/STORE, which is left there."""
    home = work / STORE
    _remove(home)
    home.mkdir(parents=True)
    tool.prepare(home)
    rows = [_saved(tool, entry, home, work / "copy") for entry in entries]
    return [_restored(tool, entry, home, row) for entry, row in zip(entries, rows, strict=True)]


def _saved(tool: Tool, entry: Entry, home: Path, spare: Path) -> Row:
    _remove(spare)
    warm(entry.folder)
    copy = copy_and_sync(entry.folder, spare)
    _remove(spare)
    tool.stage(entry)
    before = tool.store_bytes()
    tool.peak()
    warm(entry.folder)
    warm(home)
    seconds = to_disk(lambda: tool.save(entry))
    kept = tool.store_bytes() - before
    return Row(entry.name, entry.bytes, kept, seconds, 0.0, copy, tool.peak(), 0, False)


def _restored(tool: Tool, entry: Entry, home: Path, row: Row) -> Row:
    places: list[Path] = []
    warm(home)
    seconds = to_disk(lambda: places.append(tool.restore(entry)))
    exact = same_bytes(entry.folder, places[0])
    _remove(home / OUT)
    return replace(row, restore=seconds, restore_peak=tool.peak(), exact=exact)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


# --- what was found ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walked:
    title: str
    rows: list[Row]
    """The versions."""
    again: Row

    @classmethod
    def of(cls, title: str, walks: Sequence[Sequence[Row]], missed: list[str]) -> Walked:
        rows = medians(walks)
        missed += [f"{title}: {row.name} came back with other bytes" for row in rows if not row.exact]
        return cls(title, rows[:-1], rows[-1])

    def total(self, field: str) -> float:
        return sum(getattr(row, field) for row in self.rows)


def medians(walks: Sequence[Sequence[Row]]) -> list[Row]:
    """Of several walks: the median of each time, the greatest peak; exact if each was."""
    return [_median(rows) for rows in zip(*walks, strict=True)]


def _median(rows: Sequence[Row]) -> Row:
    return replace(
        rows[0],
        kept=int(median(row.kept for row in rows)),
        save=median(row.save for row in rows),
        restore=median(row.restore for row in rows),
        copy=median(row.copy for row in rows),
        save_peak=max(row.save_peak for row in rows),
        restore_peak=max(row.restore_peak for row in rows),
        exact=all(row.exact for row in rows),
    )
