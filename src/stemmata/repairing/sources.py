"""Sources: where a damaged or missing object may still be had. Owns the gate: nothing passes it whose digest
is not the one that was asked for (I4).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple, Protocol

from stemmata.checking.report import FAULTS
from stemmata.codecs.dtypes import DType
from stemmata.codecs.hashing import Buffer, digest_of
from stemmata.codecs.workers import frame_pool
from stemmata.errors import RepairSourceMissing, StemmataError
from stemmata.ids import Digest
from stemmata.objects import ObjectReader
from stemmata.objects.room import Room
from stemmata.records import Content
from stemmata.repairing.folders import FolderSource
from stemmata.repairing.stock import Stock
from stemmata.session import Session
from stemmata.storage.base import Storage
from stemmata.storage.local import LocalStorage
from stemmata.trees import Tree

OWN = "another copy in this repository"


class Found(NamedTuple):
    """An object's content, and what its numbers are."""

    content: Buffer
    dtype: DType


class Source(Protocol):
    """One place. What it says is not believed."""

    name: str

    def find(self, digest: Digest) -> tuple[Buffer, DType] | None:
        """What it has as this object."""

    def tree_of(self, content: Content, /) -> Tree | None:
        """Files that are just these, cut as a save cuts them."""

    def expect(self, tree: Tree, wanted: Set[Digest], /) -> bool:
        """These objects may lie in a file of this tree that was cut otherwise than it would be now; whether
        that file is here."""


class StoreSource:
    """Packs: of this repository in whatever state, or of another. Its log is not read: a part of a copy, of
    which only packs are left, serves as well."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.name = name
        self._storage = storage
        self._reader = ObjectReader(storage)
        self._stock: Stock | None = None

    def find(self, digest: Digest) -> tuple[Buffer, DType] | None:
        if self._stock is None:
            self._stock = Stock(self._storage)
        for pack in self._stock.packs_with(digest):
            try:
                with self._reader.opened(digest, [pack], Room()) as (_, decoder):
                    return decoder.content(frame_pool()), decoder.header.dtype
            except FAULTS:
                continue
        return None

    def tree_of(self, _: Content, /) -> Tree | None:
        return None  # a tree is an object there

    def expect(self, _tree: Tree, _wanted: Set[Digest], /) -> bool:
        return False


class Sources:
    """All of them, in the order in which they are asked: those that cost least first."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = list(sources)
        self._asked: dict[Digest, tuple[Source, int] | None] = {}

    def where(self, digest: Digest) -> tuple[Source, int] | None:
        """The first that has this object, which was read and held against its digest, and its size."""
        if digest not in self._asked:
            self.find(digest)
        return self._asked[digest]

    def find(self, digest: Digest) -> Found | None:
        """The object's content from the first that has it, verified."""
        known = self._asked.get(digest)
        if digest in self._asked and known is None:
            return None
        ahead = self._sources if known is None else [known[0], *self._sources]
        for source in ahead:
            try:
                found = source.find(digest)
            except (StemmataError, OSError):
                continue  # it fails, or has changed since it was looked at: others may have it
            if found is not None and digest_of(found[0]) == digest:
                self._asked[digest] = source, len(found[0])
                return Found(*found)
        self._asked[digest] = None
        return None

    def tree_of(self, content: Content) -> tuple[Source, Tree] | None:
        """A tree with this content, of files that lie in one of the sources."""
        for source in self._sources:
            found = source.tree_of(content)
            if found is not None:
                return source, found
        return None

    def expect(self, tree: Tree, wanted: Set[Digest]) -> bool:
        """Look for these also by how `tree` cuts its files; whether there is any such file."""
        found = [source for source in self._sources if source.expect(tree, wanted)]
        if found:
            for digest in wanted:
                self._asked.pop(digest, None)
        return bool(found)


def require_sources(given: Sequence[str | os.PathLike[str]]) -> None:
    """To be asked before a long check. Raises RepairSourceMissing."""
    for path in given:
        _given(Path(path))


def opened(session: Session, given: Sequence[str | os.PathLike[str]]) -> Sources:
    """This repository's own packs, its cached checkouts, then what was given: repositories, folders of model
    files, single files. Raises RepairSourceMissing."""
    named = [source for path in given for source in _given(Path(path))]
    return Sources([StoreSource(session.storage, OWN), *_checkouts(session), *named])


def _given(path: Path) -> list[Source]:
    inside = path / ".stemmata"
    try:
        if not path.exists():
            raise RepairSourceMissing(path=str(path), reason="there is nothing")
        # Also a part of a copy, of which only packs are left.
        if (path / "stemmata.json").exists() or any((path / "packs").glob("??/*.pack")):
            return [StoreSource(LocalStorage(path), str(path))]
        if (inside / "stemmata.json").exists():
            return [StoreSource(LocalStorage(inside), str(inside)), FolderSource(path, str(path))]
    except OSError as error:
        raise RepairSourceMissing(path=str(path), reason=error.strerror or str(error)) from None
    return [FolderSource(path, str(path))]


def _checkouts(session: Session) -> Iterator[Source]:
    for cache in session.cache_folders():
        try:
            homes = sorted((cache / "checkouts").iterdir())
        except OSError:
            continue
        for home in homes:
            if not home.name.startswith(".") and (home / "files").is_dir():
                yield FolderSource(home / "files", f"the cached checkout of {home.name[:12]}")
