"""Extent: how deep a check goes, which part it takes, and what an interrupted one has done already."""

from __future__ import annotations

import os
import random
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import msgspec

from stemmata.catalog.catalog import user_cache_folder
from stemmata.checking.placed import PlacedPack, PlacedVersion
from stemmata.errors import InvalidArgument
from stemmata.ids import Digest
from stemmata.log.entries import Position
from stemmata.log.reader import fetch
from stemmata.storage.base import Storage

Level = Literal["structure", "stored", "full"]
LEVELS: tuple[Level, ...] = get_args(Level)
_MAX_BYTES = 64 << 20
_SECONDS = 5.0
"""Between two notes of how far a check has come."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a check reads. `sample` is the part of packs and versions (0 to 1), None for all."""

    level: Level = "full"
    sample: float | None = None
    seed: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise InvalidArgument(argument="level", reason=f"it is one of {', '.join(LEVELS)}")
        if self.sample is not None and not 0 < self.sample <= 1:
            raise InvalidArgument(argument="sample", reason="it is a part of all: above 0, at most 1 (100%)")
        if self.sample is not None and self.level == "structure":
            raise InvalidArgument(argument="sample", reason="the structure is always checked whole")
        if self.sample is not None and self.resume:
            raise InvalidArgument(
                argument="resume", reason="a sample is a check of its own, made anew each time"
            )

    def seeded(self) -> Extent:
        """With a seed, so that the same sample can be taken again."""
        if self.sample is None or self.seed is not None:
            return self
        return Extent(self.level, self.sample, secrets.randbelow(1 << 32), self.resume)

    def takes(self, item: bytes) -> bool:
        """Is a pack or version (by its name's bytes) in the sample? Others do not change the answer."""
        if self.sample is None:
            return True
        return random.Random(f"{self.seed} {item.hex()}").random() < self.sample  # noqa: S311  # no secret


class _Done(msgspec.Struct):
    """What is sound so far. `marks`: size and time of the last write of each pack that was read."""

    repository: str
    n: int
    hash: str
    marks: dict[str, tuple[int, float]] = {}
    stored: set[str] = set()
    versions: set[str] = set()
    decoded: set[str] = set()


class Progressing:
    """How far a check has come, noted in a cache.

    A cache is no evidence: it says what an earlier run read and found sound, of files that have the size
    and time they had then. The log, its chain, bundles and every index are read again each time.
    """

    def __init__(self, storage: Storage, repository: str, here: Position, extent: Extent) -> None:
        self._extent = extent
        self._file: Path | None = None
        self._noted = time.monotonic()
        if extent.level != "structure" and extent.sample is None:
            self._file = _place(storage, repository, extent.level)
        marks = {k.key: (k.size, k.modified) for k in storage.list("packs/")} if self._file else {}
        self._done = _Done(repository, here.n, here.hash.hex)
        if extent.resume and self._file is not None:
            self._take(storage, here, marks)
        self._done.marks = marks
        self._done.n, self._done.hash = here.n, here.hash.hex
        self.resumed = len(self._done.stored)

    def has_stored(self, pack: PlacedPack) -> bool:
        return pack.name.hex in self._done.stored

    def has_decoded(self, pack: PlacedPack) -> bool:
        return pack.name.hex in self._done.decoded

    def has_version(self, version: PlacedVersion) -> bool:
        return version.id.hex + _where(version) in self._done.versions

    def stored(self, pack: PlacedPack) -> None:
        self._note(self._done.stored, pack.name.hex)

    def decoded(self, pack: PlacedPack) -> None:
        self._note(self._done.decoded, pack.name.hex)

    def version(self, version: PlacedVersion) -> None:
        self._note(self._done.versions, version.id.hex + _where(version))

    def _note(self, kind: set[str], what: str) -> None:
        if self._file is None:
            return
        kind.add(what)
        if time.monotonic() - self._noted > _SECONDS:
            self.write()

    def write(self) -> None:
        """Keep it for a check that goes on from here. Never fails."""
        if self._file is None:
            return
        self._noted = time.monotonic()
        temp = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}")
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            try:
                temp.write_bytes(msgspec.json.encode(self._done))
                temp.replace(self._file)
            finally:
                temp.unlink(missing_ok=True)

    def finish(self) -> None:
        """A check that came to its end is not gone on with."""
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    def _take(self, storage: Storage, here: Position, marks: dict[str, tuple[int, float]]) -> None:
        """Go on from an earlier run, if it was of a beginning of this very log."""
        assert self._file is not None
        try:
            if self._file.stat().st_size > _MAX_BYTES:
                return
            found = msgspec.json.decode(self._file.read_bytes(), type=_Done)
        except (OSError, ValueError, RecursionError):
            return
        if found.repository != self._done.repository or not 0 < found.n <= here.n:
            return
        data = fetch(storage, found.n)
        if data is None or Digest.of(data).hex != found.hash:
            return
        changed = {k for k, mark in found.marks.items() if marks.get(k) != mark}
        if changed:
            # An object may lean on another pack: what was decoded is read again as a whole.
            found.versions, found.decoded = set(), set()
        gone = {key.rpartition("/")[2].removesuffix(".pack") for key in changed}
        found.stored -= gone
        self._done = found


def _place(storage: Storage, repository: str, level: str) -> Path | None:
    """Where it is noted; nowhere for a repository that ends with its process."""
    if storage.where.startswith("memory"):
        return None
    folder = storage.cache_folder
    if folder is None or not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        with suppress(RuntimeError):
            folder = user_cache_folder() / repository
    return folder / f"check-{level}.json" if folder is not None else None


def _where(version: PlacedVersion) -> str:
    """A version that was moved since is another matter."""
    return (
        " " + Digest.of(b"".join([*(p.raw for p in version.packs), *(d.raw for d in version.tree)])).hex[:16]
    )
