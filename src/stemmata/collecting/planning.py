"""Planning: what a collection is to do, computed from a picture alone. Writes nothing; `--dry-run` prints it.

A pack is written anew, or just let go, if it holds text that nobody needs (provenance, trees, configuration:
what is not a tensor may be a secret), or more than a twentieth of it are tensors that nobody needs. What
leans on such a pack goes with it, for it names the pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from stemmata.collecting.copies import Copies, Mask, Rows
from stemmata.collecting.picture import Kept, Picture
from stemmata.ids import PackName, VersionId
from stemmata.log.fold import DELETED
from stemmata.objects.writing import PACK_BYTES

TOLERANCE = 0.05
"""Part of a pack that may be tensors nobody needs. A twentieth, for the rest is copied to be rid of it, and a
store must stay within a tenth of what it would be without them."""
LITTLE_LEANING = 0.03
"""Part of related tensors that may be there only for others to lean on, before those are coded anew."""
SMALL = 16 << 20
MANY = 16
"""So many packs smaller than that are put together when a collection runs anyway."""


@dataclass(slots=True)
class Cluster:
    """Tensors that lean on others which no version holds any more."""

    leaning: Rows
    """Copies that versions read, to be coded anew."""
    ghosts: Rows
    """What is there only for them."""


@dataclass(slots=True)
class Plan:
    """What is to go. Sizes in bytes as stored."""

    forget: list[Kept]
    stay: list[Kept]
    packs: set[PackName]
    """Packs that are to be retired; what is needed of them is written anew."""
    rewritten: int = 0
    """Bytes that are needed of them."""
    freed: int = 0
    clusters: list[Cluster] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.forget or self.packs)


def plan(
    picture: Picture,
    forget: Mapping[VersionId, int],
    *,
    apart: frozenset[bytes] = frozenset(),
    repack: bool = False,
    model: str | None = None,
) -> Plan:
    """Which packs go once these versions are forgotten, each as long as that entry's deletion still stands.

    `apart`: tensors, by digest, that were found to be no smaller when coded anew. `repack`: try that with all
    tensors, or those of versions of a model (by its key), and put together what is in small packs.
    Raises Damage if it cannot be told what a version needs.
    """
    copies = picture.copies
    gone = [v for v in picture.kept if v.state == DELETED and forget.get(v.id) == v.state_n]
    over = {v.id for v in gone}
    stay = [v for v in picture.kept if v.id not in over]
    roots = picture.roots(stay)
    needed = copies.mask(copies.closure(roots))
    scope = picture.roots(v for v in stay if model in (None, v.model)) if repack else None
    clusters = [c for c in _clusters(copies, roots, needed, scope) if not _is_apart(copies, c, apart)]
    wanted = _wasteful(copies, needed)
    for cluster in clusters:
        wanted |= set(np.unique(copies.pack[np.concatenate([cluster.leaning, cluster.ghosts])]).tolist())
    limit, most = (PACK_BYTES // 2, 1) if repack else (SMALL, MANY)
    small = [i for i, pack in enumerate(copies.packs) if pack.size < limit]
    if len(small) > most:
        wanted |= set(small)
    packs = _with_all_upon(copies, wanted)
    inside = np.isin(copies.pack, [copies.place[name] for name in packs])
    ghosts = sum(int(copies.stored[c.ghosts].sum()) for c in clusters)
    return Plan(
        forget=gone,
        stay=stay,
        packs=packs,
        rewritten=int(copies.stored[inside & needed].sum()) - ghosts,
        freed=int(copies.stored[inside & ~needed].sum()) + ghosts,
        clusters=clusters,
    )


def _wasteful(copies: Copies, needed: Mask) -> set[int]:
    """Packs that hold text nobody needs, or too much else."""
    count = len(copies.packs)
    # What is needed elsewhere under the same digest is no secret that is left over, only a duplicate.
    known = np.isin(copies.digest, np.unique(copies.digest[needed]))
    text = np.bincount(copies.pack[~needed & ~known & copies.text], minlength=count)
    waste = np.bincount(copies.pack[~needed], weights=copies.stored[~needed], minlength=count)
    used = np.bincount(copies.pack[needed], minlength=count)
    sizes = np.array([pack.size for pack in copies.packs], np.float64)
    found = (text > 0) | (waste > TOLERANCE * sizes) | (used == 0)
    return set(np.flatnonzero(found).tolist())


def _with_all_upon(copies: Copies, wanted: set[int]) -> set[PackName]:
    """These packs and all that lean on them, at however many steps."""
    found = {copies.packs[i].name for i in wanted}
    for pack in copies.packs:  # each after those that it leans on
        if not found.isdisjoint(pack.bases):
            found.add(pack.name)
    return found


def _clusters(copies: Copies, roots: Rows, needed: Mask, scope: Rows | None) -> list[Cluster]:
    """Tensors that lean on what no version holds, and what they lean on, put together where they share it.

    With `scope`: all tensors there and what is related to them.
    """
    held = np.isin(copies.digest, copies.digest[roots])
    ghost = needed & ~held
    leaning = copies.upon(ghost) & needed & held
    if scope is not None:
        leaning |= needed & held & ~copies.text
    if not leaning.any():
        return []
    parent: dict[int, int] = {}

    def top(row: int) -> int:
        while parent.setdefault(row, row) != row:
            row = parent[row]
        return row

    for row in np.flatnonzero(leaning | ghost).tolist():
        for base in copies.leans_on(row):
            if ghost[base] or leaning[base]:
                parent[top(row)] = top(base)
    groups: dict[int, list[int]] = {}
    for row in np.flatnonzero(leaning | ghost).tolist():
        groups.setdefault(top(row), []).append(row)
    found = []
    inside = set(scope.tolist()) if scope is not None else set()
    for rows in groups.values():
        each = np.array(rows, np.int64)
        cluster = Cluster(each[leaning[each]], each[ghost[each]])
        part = copies.stored[cluster.ghosts].sum() / copies.stored[each].sum()
        if part > LITTLE_LEANING if scope is None else not inside.isdisjoint(rows):
            found.append(cluster)
    return found


def _is_apart(copies: Copies, cluster: Cluster, apart: frozenset[bytes]) -> bool:
    return any(bytes(copies.digest[row]) in apart for row in cluster.leaning.tolist())
