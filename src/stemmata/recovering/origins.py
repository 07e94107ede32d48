"""Origins: where an entry's bytes may still be. Owns how they are looked for; believes none of them.

Whatever an origin hands out is held against a hash before it is used, so that one may be damaged, old, or
lie.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from stemmata.catalog.catalog import FILE, user_cache_folder
from stemmata.catalog.recent import Kept, kept_in
from stemmata.errors import Damage, KeyMissing, NewerFormat, StemmataError, StorageFailed, StorageProblem
from stemmata.ids import Digest
from stemmata.log.bundles import BundleName, entries_of, find_bundles
from stemmata.log.entries import log_key
from stemmata.log.identity import KEY as IDENTITY
from stemmata.log.identity import MAX_BYTES, Identity, encode_identity, read_identity
from stemmata.log.reader import fetch
from stemmata.recovering.mending import mended
from stemmata.storage.base import Storage
from stemmata.storage.local import LocalStorage

_SPAN = 256
"""Entries of a bundle that are in memory at once."""


class Origin(Protocol):
    """A place that may still have what is damaged. `name` is for people."""

    name: str

    def entries(self, n: int) -> Iterator[bytes]:
        """What may be entry `n`."""

    def identities(self) -> Iterator[bytes]:
        """What may be `stemmata.json`."""


class Bundles:
    """The bundles of a storage, damaged ones as far as they can be read."""

    def __init__(self, storage: Storage, wanted: Collection[int], name: str) -> None:
        self.name = name
        self._storage = storage
        self._wanted = frozenset(wanted)
        # Those of few entries first: less is read for one of them.
        self._bundles = sorted(find_bundles(storage), key=lambda b: (b.level, b.first))
        self._span: dict[BundleName, tuple[int, dict[int, bytes]]] = {}

    def entries(self, n: int) -> Iterator[bytes]:
        for bundle in self._bundles:
            if bundle.first <= n <= bundle.last:
                data = self._read(bundle, n).get(n)
                if data is not None:
                    yield data

    def identities(self) -> Iterator[bytes]:
        return iter(())

    def _read(self, bundle: BundleName, n: int) -> dict[int, bytes]:
        """The wanted entries around `n`; kept, for the next ones asked for are close to it."""
        span = (n - 1) // _SPAN
        kept = self._span.get(bundle)
        if kept is None or kept[0] != span:
            found: dict[int, bytes] = {}
            with suppress(Damage, KeyMissing, StorageFailed):
                for number, data in enumerate(entries_of(self._storage, bundle), bundle.first):
                    if (number - 1) // _SPAN == span and number in self._wanted:
                        found[number] = data
            kept = self._span[bundle] = (span, found)
        return kept[1]


class Catalogs:
    """The catalogs that were folded from this log: in the repository's own cache and in the user's."""

    name = "the catalog"

    def __init__(self, storage: Storage) -> None:
        inside = storage.cache_folder
        first = kept_in(inside / FILE) if inside is not None else None
        self.all: list[Kept] = [first] if first is not None else []
        self.files: list[Path] = [inside / FILE] if inside is not None and first is not None else []

    def look(self, storage: Storage, repository: str) -> None:
        """Take in the catalog in the user's cache folder, when it is known which that is."""
        if storage.where.startswith("memory"):
            return
        with suppress(RuntimeError):  # a user without a home
            file = user_cache_folder() / repository / FILE
            found = kept_in(file)
            if found is not None:
                self.all.append(found)
                self.files.append(file)

    def entries(self, n: int) -> Iterator[bytes]:
        for kept in self.all:
            if n in kept.entries:
                yield kept.entries[n]

    def identities(self) -> Iterator[bytes]:
        for kept in self.all:
            if kept.format:
                yield encode_identity(kept.repository, kept.format, kept.created)


class Itself:
    """What is left of the damaged key: one byte that changed, or a seal, can be put right."""

    name = "what is left of it"

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.wanted: Digest | None = None
        """The hash that the text had, if that is known."""

    def entries(self, n: int) -> Iterator[bytes]:
        with suppress(StorageFailed):
            yield from self._mend(fetch(self._storage, n))

    def identities(self) -> Iterator[bytes]:
        with suppress(StorageFailed, KeyMissing):
            yield from self._mend(self._storage.get(IDENTITY, 0, MAX_BYTES + 1))

    def _mend(self, data: bytes | None) -> Iterator[bytes]:
        found = mended(data, self.wanted) if data else None
        if found is not None:
            yield found


class Copy:
    """Another copy of the repository."""

    def __init__(self, storage: Storage, wanted: Collection[int]) -> None:
        self.name = storage.where
        self._storage = storage
        self._bundles = Bundles(storage, wanted, self.name)

    def entries(self, n: int) -> Iterator[bytes]:
        with suppress(StorageProblem):
            data = fetch(self._storage, n)
            if data is not None:
                yield data
        yield from self._bundles.entries(n)

    def identities(self) -> Iterator[bytes]:
        with suppress(StorageProblem):
            yield self._storage.get(IDENTITY, 0, MAX_BYTES + 1)


def copies_at(paths: Iterable[str | Path], storage: Storage) -> list[Storage]:
    """Those of `paths` that are repositories, or hold one as `.stemmata`, damaged or not; but for
    `storage`."""
    found: dict[str, Storage] = {}
    for path in paths:
        for folder in (Path(path), Path(path) / ".stemmata"):
            if any((folder / name).is_dir() for name in ("log", "bundles")):
                copy = LocalStorage(folder.resolve())
                found.setdefault(copy.where, copy)
    found.pop(str(Path(storage.where).resolve()), None)
    return list(found.values())


def identity_of(storage: Storage) -> Identity | None:
    """A storage's identity; None where it has none that is sound. Raises NewerFormat."""
    try:
        return read_identity(storage)
    except NewerFormat:
        raise
    except StemmataError:
        return None


def key_of(n: int) -> str:
    """The key of entry `n`; of `stemmata.json` for 0."""
    return log_key(n) if n else IDENTITY
