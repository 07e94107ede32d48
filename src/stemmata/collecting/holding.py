"""Holding: how many stored bytes a version keeps alive, alone and with others. Owns what "frees" means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stemmata.collecting.copies import Rows
from stemmata.collecting.picture import Kept, Picture
from stemmata.errors import Damage
from stemmata.ids import VersionId
from stemmata.session import Session


@dataclass(frozen=True, slots=True)
class Holding:
    """A version's bytes as stored, what it leans on included. `alone`: what only it needs, so that
    forgetting it frees as much."""

    id: VersionId
    model: str
    name: str
    state: str
    bytes: int
    alone: int


class Holdings:
    """Of every visible and restorable version: 8 bytes of memory for each object of each.

    A version that is damaged holds nothing that could be told.
    """

    def __init__(self, picture: Picture) -> None:
        copies = picture.copies
        self._stored = copies.stored
        self._rows: dict[VersionId, Rows] = {}
        self._kept: dict[VersionId, Kept] = {version.id: version for version in picture.kept}
        self._users = np.zeros(len(copies), np.int32)
        for version in picture.kept:
            try:
                rows = copies.closure(picture.rows(version))
            except Damage:
                rows = np.empty(0, np.int64)
            self._rows[version.id] = rows
            self._users[rows] += 1

    def __iter__(self) -> Iterator[Holding]:
        return (self.of(version) for version in self._kept)

    def of(self, version: VersionId) -> Holding:
        kept = self._kept[version]
        total = int(self._stored[self._rows[version]].sum())
        return Holding(version, kept.model, kept.name, kept.state, total, self.alone(version))

    def alone(self, version: VersionId) -> int:
        """Bytes that only this version needs."""
        rows = self._rows[version]
        return int(self._stored[rows[self._users[rows] == 1]].sum())

    def freed_by(self, versions: Iterable[VersionId]) -> int:
        """Bytes that nobody needs without these."""
        users = self._users.copy()
        touched = [self._rows[version] for version in set(versions)]
        for rows in touched:
            users[rows] -= 1
        every = np.unique(np.concatenate(touched)) if touched else np.empty(0, np.int64)
        return int(self._stored[every[users[every] == 0]].sum())

    def pins(self, version: VersionId, most: int = 5) -> list[tuple[VersionId, int]]:
        """Which versions need the rest of this one's bytes too, and how many; those that share most first."""
        mine = np.zeros(len(self._stored), np.bool_)
        mine[self._rows[version]] = True
        found = []
        for other, rows in self._rows.items():
            shared = int(self._stored[rows[mine[rows]]].sum()) if other != version else 0
            if shared:
                found.append((other, shared))
        return sorted(found, key=lambda each: -each[1])[:most]


def holdings(session: Session) -> Holdings:
    """What each version holds now. Reads the log to its end, all trees, and the headers of all objects."""
    return Holdings(Picture(session))
