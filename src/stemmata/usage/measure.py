"""Measuring: who holds which bytes. Owns the sums; reads through `reading`.

Two walks over the versions, each with a few arrays as long as there are objects: one as they were committed
(what came anew with each, what only one holds), one by model and run (what each of these needs).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from stemmata.catalog import contents, queries
from stemmata.catalog.contents import Holder
from stemmata.codecs.frames import CAST, DELTA
from stemmata.codecs.looking import CODECS
from stemmata.names import name_key
from stemmata.session import Session
from stemmata.storage.base import Storage
from stemmata.usage.reading import Keys, held_by, objects_of
from stemmata.usage.report import Growth, Kept, Part, Places, Usage, VersionPart

LARGEST = 10
_BARS = 12
"""Spans of growth, at most."""
_NOBODY = -1
Progress = Callable[[int, int], None]


def measure(session: Session, model: str | None = None, progress: Progress | None = None) -> Usage:
    """How much space the repository takes, or one model in it (by name), and what for.

    Reads packs' indexes, the heads of objects, and trees, all of which are kept in the catalog for the next
    time; decodes no weights. `progress` gets how many packs and versions were looked at, and of how many.
    """
    catalog, unread = session.catalog, list[str]()
    versions = contents.holders(catalog.connection)
    packs = len(contents.live_packs(catalog.connection))
    done, total = 0, packs + 2 * len(versions)

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    def note(what: str) -> None:
        if what not in unread:
            unread.append(what)

    table = _Objects(objects_of(session, note, step))
    key = name_key(model) if model is not None else None
    first = _Walk(table, key)
    for version, files, beside in held_by(session, versions, note, step):
        first.add(version, table.places(files), table.places(beside))
    parts = _Parts(table, first.holders_of)
    for version, files, beside in held_by(session, sorted(versions, key=_by_part), note, step):
        parts.add(version, np.union1d(table.places(files), table.places(beside)))
    names = {m.key: m.name for m in queries.models(catalog.connection)}
    chosen = [part for part in parts.done() if key is None or part.model == key]
    files_of, beside_of = first.is_file, first.is_beside & ~first.is_file
    raw, coded = table.raw[files_of].sum(axis=0), table.coded[files_of].sum(axis=0)
    saved, stored = raw - coded, int(table.stored[files_of].sum())
    distinct = int(raw.sum())
    mine = first.mine
    return Usage(
        model=model,
        versions=len(mine),
        restorable=sum(version.state != "visible" for version in mine),
        files=sum(version.bytes for version in mine),
        distinct=distinct,
        stored=stored + int(table.stored[beside_of].sum()),
        beside=int(table.stored[beside_of].sum()),
        saved_by_dedup=sum(version.bytes for version in mine) - distinct,
        saved_by_deltas=int(saved[DELTA]),
        saved_by_casts=int(saved[CAST]),
        # Headers are what coding costs; so the four and what is stored make up the files.
        saved_by_compression=distinct - stored - int(saved[DELTA]) - int(saved[CAST]),
        codecs=tuple(
            Kept(name, int(raw[codec]), int(coded[codec])) for codec, name in CODECS.items() if raw[codec]
        ),
        models=tuple(_named(part, names) for part in chosen if part.run == _WHOLE),
        runs=tuple(_named(replace(part, run=part.run[1:]), names) for part in chosen if part.run != _WHOLE),
        largest=first.largest(names),
        growth=_spans(first.growth),
        packs=packs,
        unneeded=table.unneeded(first.holders_of > 0),
        places=_places(session.storage, catalog.file, session.cache_folders()),
        unread=tuple(sorted(unread)),
    )


class _Objects:
    """All stored objects, each once."""

    def __init__(self, found: Any) -> None:
        keys, places = np.unique(found["key"], return_index=True)
        self._keys = keys
        self._again = int(found["stored"].sum(dtype=np.int64))
        found = found[places]
        self.stored = found["stored"].astype(np.int64)
        self._again -= int(self.stored.sum())
        self.raw, self.coded = found["raw"].astype(np.int64), found["coded"].astype(np.int64)
        self._base = self.places(found["base"], absent=True)

    def __len__(self) -> int:
        return len(self._keys)

    def places(self, keys: Keys, *, absent: bool = False) -> Keys:
        """Where the objects of these keys stand; those that no pack holds are left out, or -1."""
        at = np.searchsorted(self._keys, keys)
        there = at < len(self._keys)
        there[there] = self._keys[at[there]] == keys[there]
        return np.where(there, at, _NOBODY) if absent else at[there]

    def unneeded(self, needed: Keys) -> int:
        """Stored bytes of what is not needed, be it as a base, and of objects that are stored twice."""
        needed = needed.copy()
        while True:
            bases = self._base[needed]
            bases = bases[bases != _NOBODY]
            if needed[bases].all():
                return int(self.stored[~needed].sum()) + self._again
            needed[bases] = True


class _Walk:
    """The versions as they were committed."""

    def __init__(self, table: _Objects, model: str | None) -> None:
        self._table, self._model = table, model
        self.holders_of = np.zeros(len(table), np.int64)
        self._only = np.full(len(table), _NOBODY, np.int64)
        """Of what one version holds alone: which."""
        self.is_file, self.is_beside = np.zeros(len(table), bool), np.zeros(len(table), bool)
        self.mine: list[Holder] = []
        self.growth: list[tuple[str, int, int]] = []
        """Of each version: when, bytes of its files, bytes that came anew."""

    def add(self, version: Holder, files: Keys, beside: Keys) -> None:
        held = np.union1d(files, beside)
        self.holders_of[held] += 1
        if self._model is not None and version.model != self._model:
            return
        self._only[held] = len(self.mine)
        self.mine.append(version)
        new = held[~(self.is_file[held] | self.is_beside[held])]
        self.is_file[files] = True
        self.is_beside[beside] = True
        self.growth.append((version.at, version.bytes, int(self._table.stored[new].sum())))

    def largest(self, names: dict[str, str]) -> tuple[VersionPart, ...]:
        alone = (self.holders_of == 1) & (self._only != _NOBODY)
        own = np.bincount(self._only[alone], self._table.stored[alone], len(self.mine)).astype(np.int64)
        order = np.argsort(-own, kind="stable")[:LARGEST]
        found = ((self.mine[place], int(own[place])) for place in order)
        return tuple(
            VersionPart(v.id.hex(), names.get(v.model, v.model), v.name, v.bytes, o) for v, o in found
        )


_WHOLE = ""
"""The run of a model as a whole; a run's name stands behind a mark, an unnamed one's too."""


def _by_part(version: Holder) -> tuple[str, str, int]:
    return version.model, version.run, version.seq


class _Parts:
    """The versions by model and run."""

    def __init__(self, table: _Objects, holders_of: Keys) -> None:
        self._table, self._holders_of = table, holders_of
        self._within = {name: np.zeros(len(table), np.int64) for name in ("model", "run")}
        self._open: dict[str, Part] = {}
        self._held: dict[str, list[Keys]] = {"model": [], "run": []}
        self._done: list[Part] = []

    def add(self, version: Holder, held: Keys) -> None:
        for level, run in (("model", _WHOLE), ("run", f"/{version.run}")):
            part = self._open.get(level)
            if part is None or (part.model, part.run) != (version.model, run):
                self._close(level)
                part = Part(version.model, run, 0, 0, 0, 0)
            counts = self._within[level]
            new = held[counts[held] == 0]
            counts[held] += 1
            self._held[level].append(new)
            needed = part.needed + int(self._table.stored[new].sum())
            self._open[level] = replace(
                part, versions=part.versions + 1, files=part.files + version.bytes, needed=needed
            )

    def done(self) -> list[Part]:
        for level in self._within:
            self._close(level)
        return sorted(self._done, key=lambda part: (-part.own, -part.needed, part.model, part.run))

    def _close(self, level: str) -> None:
        part = self._open.pop(level, None)
        if part is None:
            return
        counts = self._within[level]
        held = np.concatenate(self._held[level])
        alone = held[counts[held] == self._holders_of[held]]
        self._done.append(replace(part, own=int(self._table.stored[alone].sum())))
        counts[held] = 0
        self._held[level].clear()


def _named(part: Part, names: dict[str, str]) -> Part:
    return replace(part, model=names.get(part.model, part.model))


def _spans(found: Sequence[tuple[str, int, int]]) -> tuple[Growth, ...]:
    """Growth by day, week, month, quarter or year, whichever gives at most a dozen of spans."""
    if not found:
        return ()
    days = [datetime.fromisoformat(at).date() for at, _, _ in found]
    ends = next(
        ends
        for ends in (
            _days,
            _weeks,
            lambda d: _months(d, 1),
            lambda d: _months(d, 3),
            lambda d: _months(d, 12),
            _all,
        )
        if len({ends(day) for day in days}) <= _BARS
    )
    spans: dict[date, Growth] = {}
    versions = files = stored = 0
    for day, (_, size, new) in zip(days, found, strict=True):
        versions, files, stored = versions + 1, files + size, stored + new
        until = ends(day)
        spans[until] = Growth(until.isoformat(), versions, files, stored)
    return tuple(spans.values())


def _days(day: date) -> date:
    return day


def _weeks(day: date) -> date:
    return day + timedelta(days=6 - day.weekday())


def _months(day: date, count: int) -> date:
    """The last day of the span of so many months, counted from January."""
    month = (day.month - 1) // count * count + count
    return date(day.year + month // 12, month % 12 + 1, 1) - timedelta(days=1)


def _all(_: date) -> date:
    return date.max


def _places(storage: Storage, catalog: Path | None, caches: Iterable[Path]) -> Places:
    def size(prefix: str) -> int:
        return sum(found.size for found in storage.list(prefix))

    beside = [catalog.with_name(catalog.name + end) for end in ("", "-wal", "-shm")] if catalog else []
    return Places(
        packs=size("packs/"),
        log=size("log/"),
        bundles=size("bundles/"),
        checkpoints=size("checkpoints/"),
        catalog=sum(map(_size_of, beside)),
        checkouts=sum(
            _size_of(Path(home) / name)
            for cache in caches
            for home, _, names in os.walk(cache / "checkouts")
            for name in names
        ),
    )


def _size_of(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0  # gone since it was listed
