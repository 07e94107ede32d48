"""Kinship: how two versions come from each other, or from a third. Owns the search among parents."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from stemmata.ids import VersionId

_FURTHEST = 4096
"""Generations that are looked back."""


@dataclass(frozen=True, slots=True)
class Kinship:
    """The nearest version that both come from - one of the two itself, if the other comes from it - and how
    many generations before each it is. Without an `ancestor`: there is none, or they are too many to look
    at (`far`)."""

    ancestor: VersionId | None
    steps_a: int = 0
    steps_b: int = 0
    far: bool = False

    def to_dict(self) -> dict[str, object]:
        found = self.ancestor is not None
        return {
            "ancestor": self.ancestor.hex if self.ancestor is not None else None,
            "steps_a": self.steps_a if found else None,
            "steps_b": self.steps_b if found else None,
        }


def kinship(connection: sqlite3.Connection, a: VersionId, b: VersionId) -> Kinship:
    """Looked for generation by generation, from both sides; deleted versions are links too."""
    seen: tuple[dict[VersionId, int], dict[VersionId, int]] = ({a: 0}, {b: 0})
    ends = [{a}, {b}]
    for generation in range(1, _FURTHEST + 1):
        common = seen[0].keys() & seen[1].keys()
        if common:
            nearest = min(common, key=lambda v: (seen[0][v] + seen[1][v], v.hex))
            return Kinship(nearest, seen[0][nearest], seen[1][nearest])
        if not any(ends):
            return Kinship(None)
        for side in (0, 1):
            before = {p for version in ends[side] for p in _parents(connection, version)}
            ends[side] = before - seen[side].keys()
            seen[side].update(dict.fromkeys(ends[side], generation))
    return Kinship(None, far=True)


def _parents(connection: sqlite3.Connection, version: VersionId) -> list[VersionId]:
    """By the index of ids: the view of all parents would be read whole."""
    found = connection.execute("SELECT seq, parent FROM versions WHERE id = ?", (version.raw,)).fetchall()
    more = "SELECT parent FROM more_parents WHERE version = ? AND parent IS NOT NULL"
    parents = [row[1] for row in found if row[1] is not None]
    parents += [row[0] for seq, _ in found for row in connection.execute(more, (seq,)).fetchall()]
    return [VersionId(parent) for parent in parents]
