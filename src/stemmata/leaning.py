"""Leaning: which stored packs a new version may be built on. Owns what is asked of a pack first.

A pack that the log names may be gone all the same: a copy that was cut off, a disk that lost it. An object
whose copy is found in a pack that is there may lean on one that is not. What is saved now must not be damaged
from its first day, so a pack counts only if it and all that it leans on are there, as long as the log says.
"""

from __future__ import annotations

import threading

from stemmata.catalog.catalog import Catalog
from stemmata.errors import KeyMissing, StorageFailed
from stemmata.ids import Digest, PackName
from stemmata.storage.base import Storage
from stemmata.storage.forks import held_at_forks


class Leaning:
    """Asks the storage once for each pack: made anew for each save."""

    def __init__(self, storage: Storage, catalog: Catalog) -> None:
        self._storage, self._catalog = storage, catalog
        self._lock = held_at_forks(threading.Lock())
        self._there: dict[PackName, bool] = {}
        self._bases: dict[PackName, list[PackName]] = {}

    def packs_holding(self, digest: Digest) -> list[PackName]:
        """Live packs that are known to hold an object and may be leaned on."""
        return [pack for pack in self._catalog.packs_holding(digest) if self.may(pack)]

    def may(self, pack: PackName) -> bool:
        """Is the pack there, with every pack that it leans on?"""
        seen: set[PackName] = set()
        open_packs = [pack]
        while open_packs:
            each = open_packs.pop()
            if each in seen:
                continue
            seen.add(each)
            if not self._is_there(each):
                return False
            open_packs += self._bases_of(each)
        return True

    def _bases_of(self, pack: PackName) -> list[PackName]:
        # Asked for every object, and a pack leans on the same ones as long as it is there.
        with self._lock:
            known = self._bases.get(pack)
        if known is None:
            known = self._catalog.bases_of(pack)
            with self._lock:
                self._bases[pack] = known
        return known

    def _is_there(self, pack: PackName) -> bool:
        with self._lock:
            known = self._there.get(pack)
        if known is None:
            try:
                known = self._storage.size(pack.key) == self._catalog.pack_size(pack)
            except (KeyMissing, StorageFailed):
                known = False
            with self._lock:
                self._there[pack] = known
        return known
