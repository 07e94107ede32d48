"""Stock: what the packs that lie in one store hold, whatever its log says of them. By their own indexes."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from stemmata.checking.report import FAULTS
from stemmata.ids import Digest, PackName
from stemmata.packs import PackReader
from stemmata.storage.base import Storage


class Stock:
    """Reads every index once; some 40 bytes of memory for each object. Nothing in it is verified yet."""

    def __init__(self, storage: Storage, more: Collection[PackName] = ()) -> None:
        """`more`: packs that should be there."""
        listed = {PackName.in_key(key.key) for key in storage.list("packs/")}
        self.packs: list[PackName] = sorted({name for name in listed if name is not None} | set(more))
        self.unreadable: set[PackName] = set()
        """Packs that are missing, or whose index cannot be read."""
        digests, places = [np.empty(0, "S32")], [np.empty(0, np.int32)]
        for i, name in enumerate(self.packs):
            try:
                found = PackReader(storage, name).index.table()["digest"]
            except FAULTS:
                self.unreadable.add(name)
                continue
            digests.append(found)
            places.append(np.full(len(found), i, np.int32))
        every = np.concatenate(digests)
        order = np.argsort(every, kind="stable")
        self._digests, self._places = every[order], np.concatenate(places)[order]

    def packs_with(self, digest: Digest) -> list[PackName]:
        """The packs whose index has the object."""
        wanted = np.array([digest.raw], "S32")
        low, high = (int(np.searchsorted(self._digests, wanted, side)[0]) for side in ("left", "right"))
        return [self.packs[i] for i in self._places[low:high].tolist()]
