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
    if a == b:
        return Kinship(a)
    seen: tuple[dict[VersionId, int], dict[VersionId, int]] = ({a: 0}, {b: 0})
    ends = [{a}, {b}]
    parents: dict[VersionId, list[VersionId]] = {}
    common: set[VersionId] = set()
    behind: set[VersionId] = set()
    nearest: Kinship | None = None
    for generation in range(1, _FURTHEST + 1):
        met: set[VersionId] = set()
        for side in (0, 1):
            for version in ends[side] - parents.keys():
                parents[version] = _parents(connection, version)
            before = {p for version in ends[side] for p in parents[version]}
            ends[side] = before - seen[side].keys()
            seen[side].update(dict.fromkeys(ends[side], generation))
            met |= ends[side] & seen[1 - side].keys()
        common |= met
        if met & {a, b}:
            nearest = _of(seen, met & {a, b})
            break
        if met:
            nearest = _of(seen, common)
        if nearest is not None and nearest.steps_a + nearest.steps_b <= generation + 1:
            # None that is found from now on is nearer, but for one of the two itself. From the other no way
            # to it leads through what both come from.
            _spread(behind, common, parents)
            ends = [side - behind for side in ends]
        if not any(ends):
            return nearest or Kinship(None)
    return nearest or Kinship(None, far=True)


def _of(seen: tuple[dict[VersionId, int], dict[VersionId, int]], common: set[VersionId]) -> Kinship:
    """The nearest of them."""
    found = min(common, key=lambda v: (seen[0][v] + seen[1][v], v.hex))
    return Kinship(found, seen[0][found], seen[1][found])


def _spread(
    behind: set[VersionId], common: set[VersionId], parents: dict[VersionId, list[VersionId]]
) -> None:
    """Add to `behind` what is in common, and all that this came from, as far as it was looked at."""
    waiting = list(common - behind)
    while waiting:
        version = waiting.pop()
        if version not in behind:
            behind.add(version)
            waiting += parents.get(version, ())


def _parents(connection: sqlite3.Connection, version: VersionId) -> list[VersionId]:
    """By the index of ids: the view of all parents would be read whole."""
    found = connection.execute("SELECT seq, parent FROM versions WHERE id = ?", (version.raw,)).fetchall()
    more = "SELECT parent FROM more_parents WHERE version = ? AND parent IS NOT NULL"
    parents = [row[1] for row in found if row[1] is not None]
    parents += [row[0] for seq, _ in found for row in connection.execute(more, (seq,)).fetchall()]
    return [VersionId(parent) for parent in parents]
