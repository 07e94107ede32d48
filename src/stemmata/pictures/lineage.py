"""LineageGraph: which version came from which, a lane for each run. Owns who stands where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stemmata.pictures import colours, words
from stemmata.pictures.picture import Picture, Table

MOST = 600
"""Versions that are drawn, the newest ones."""
_GOES_ON = ("line", "resume")
LOST = ("deleted", "forgotten", "absent", "outside")


@dataclass(frozen=True, slots=True)
class Kin:
    """One version, or what one came from, in plain values."""

    id: str
    name: str
    run: str = ""
    state: str = "visible"
    """visible, deleted, forgotten, absent (a parent not here), outside (a base that is no version)."""
    marks: tuple[str, ...] = ()
    """Aliases and tags, as people read them."""
    best: bool = False
    focus: bool = False
    facts: tuple[tuple[str, str], ...] = ()
    """What a pointer over it is told."""


@dataclass(frozen=True, slots=True)
class Link:
    """From what was there first to what came from it."""

    source: str
    target: str
    kind: str
    """line, resume, fork, merge or base."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a version stands: `lane` from above, `depth` steps from where its line begins."""

    kin: Kin
    lane: int
    depth: int


@dataclass(frozen=True, repr=False)
class LineageGraph(Picture):
    about: str
    spots: tuple[Spot, ...]
    links: tuple[Link, ...]
    lanes: tuple[str, ...]
    """What each is called: a run, or the first version of a lane without one."""
    tones: Mapping[int, int] = field(default_factory=dict)
    """By lane, a colour; the rest are grey."""
    left_out: int = 0

    kind = "lineage"
    heading = "Lineage"

    @classmethod
    def make(
        cls,
        about: str,
        kin: Iterable[Kin],
        links: Iterable[Link],
        tones: Mapping[str, int] | None = None,
    ) -> LineageGraph:
        """Of `kin` what was there first comes before what came from it. `tones`: colours by run, as another
        picture beside it has them; by default the first runs have one."""
        every = list(kin)
        kept = every[-MOST:]
        there = {each.id for each in kept}
        chosen = tuple(link for link in links if link.source in there and link.target in there)
        spots, lanes = _placed(kept, chosen)
        named = {s.lane: s.kin.run for s in spots if s.kin.run and s.kin.state == "visible"}
        if tones is None:
            coloured = {lane: place for place, lane in enumerate(list(named)[: colours.RUNS])}
        else:
            coloured = {lane: tones[run] for lane, run in named.items() if tones.get(run, -1) >= 0}
        return cls(about, spots, chosen, lanes, coloured, len(every) - len(kept))

    @property
    def is_empty(self) -> bool:
        return not self.spots

    @cached_property
    def by_id(self) -> dict[str, Spot]:
        return {spot.kin.id: spot for spot in self.spots}

    @cached_property
    def depth(self) -> int:
        return max((spot.depth for spot in self.spots), default=0)

    # --- words ----------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        return f"Lineage: {self.about}" if self.about else "Lineage"

    @cached_property
    def finding(self) -> str:
        visible = [s for s in self.spots if s.kin.state == "visible"]
        runs = {spot.kin.run for spot in visible if spot.kin.run}
        told = words.count(len(visible), "version")
        if runs:
            told += f" in {words.count(len(runs), 'run')}"
        forks: dict[str, set[int]] = {}
        for link in self.links:
            if link.kind in ("fork", "base"):
                forks.setdefault(link.source, set()).add(self.by_id[link.target].lane)
        most = max(forks, key=lambda key: len(forks[key]), default=None)
        if most is not None and len(forks[most]) > 1:
            told += f"; {len(forks[most])} of the lines come from {self.by_id[most].kin.name}"
        lost = sum(spot.kin.state in ("deleted", "forgotten") for spot in self.spots)
        return f"{told}{f'; {lost} deleted' if lost else ''}."

    @property
    def notes(self) -> Sequence[str]:
        if self.left_out:
            return (f"{words.count(self.left_out, 'earlier version')} not drawn.",)
        return ()

    # --- facts ----------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        sources: dict[str, list[str]] = {}
        for link in self.links:
            sources.setdefault(link.target, []).append(self.by_id[link.source].kin.name)
        return [
            {
                "version": spot.kin.name,
                "id": spot.kin.id,
                "run": spot.kin.run,
                "state": spot.kin.state,
                "called": list(spot.kin.marks),
                "from": sources.get(spot.kin.id, []),
            }
            for spot in self.spots
        ]

    def tables(self) -> list[Table]:
        return []

    def text(self, width: int = 100, *, colours: int = 0) -> str:
        from stemmata.pictures.typed import lineage

        return lineage.lines(self, width, colours)


def _placed(kin: Sequence[Kin], links: Sequence[Link]) -> tuple[tuple[Spot, ...], tuple[str, ...]]:
    """Lanes by a walk over the tree of first parents: a line goes straight on, and what branches off later
    takes the nearer lane, so that no branch crosses another."""
    upward: dict[str, Link] = {}
    sources: dict[str, list[str]] = {}
    for link in links:
        sources.setdefault(link.target, []).append(link.source)
        if link.kind != "merge" and (link.kind != "base" or link.target not in upward):
            upward[link.target] = link
    depth: dict[str, int] = {}
    for each in kin:
        depth[each.id] = 1 + max((depth.get(source, -1) for source in sources.get(each.id, ())), default=-1)
    below: dict[str, list[str]] = {}
    for each in kin:
        if each.id in upward:
            below.setdefault(upward[each.id].source, []).append(each.id)
    by_id = {each.id: each for each in kin}
    lane_of: dict[str, int] = {}
    lanes: list[str] = []
    pending = [each.id for each in reversed(kin) if each.id not in upward]
    while pending:
        at: str | None = pending.pop()
        assert at is not None
        lane = len(lanes)
        lanes.append("")
        branches: list[str] = []
        while at is not None:
            lane_of[at] = lane
            lanes[lane] = lanes[lane] or by_id[at].run
            ahead = below.get(at, [])
            following = next((n for n in ahead if upward[n].kind in _GOES_ON), None)
            # Popped from the end: of one version the branches in their order, later versions' first.
            branches += [n for n in reversed(ahead) if n != following]
            at = following
        pending += branches
    for each in kin:
        lanes[lane_of[each.id]] = lanes[lane_of[each.id]] or each.name
    spots = tuple(Spot(each, lane_of[each.id], depth[each.id]) for each in kin)
    return spots, tuple(lanes)
