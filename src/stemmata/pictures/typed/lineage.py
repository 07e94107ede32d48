"""A lineage in characters: a line for each lane, a mark for each version, where it branched off below it."""

from __future__ import annotations

from stemmata.pictures import colours as tones
from stemmata.pictures import words
from stemmata.pictures.lineage import LOST, LineageGraph, Spot
from stemmata.pictures.typed import ink

_MOST = 60


def lines(picture: LineageGraph, width: int, colours: int) -> str:
    found = [ink.bold(line, colours) for line in ink.wrapped(picture.finding, width)]
    lanes: dict[int, list[Spot]] = {}
    for spot in picture.spots:
        lanes.setdefault(spot.lane, []).append(spot)
    margin = min(24, max((ink.columns(name) for name in picture.lanes), default=0))
    step = max(1, min(4, (width - margin - 24) // (picture.depth + 1)))
    found += [""] if lanes else []
    for lane in range(min(len(picture.lanes), _MOST)):
        spots = sorted(lanes[lane], key=lambda spot: spot.depth)
        tone = tones.NIGHT.runs[picture.tones[lane]] if lane in picture.tones else ""
        name = ink.dim(ink.fitted(picture.lanes[lane], margin), colours)
        line, marks = _lane(picture, spots, step)
        room = width - margin - 2 - len(line) - 2
        told = words.clipped(", ".join(marks), room) if marks and room > 4 else ""
        drawn = ink.inked(line, colours, fore=tone) if tone else line
        found.append(f"{name}  {drawn}{'  ' + words.printable(told) if told else ''}".rstrip())
    if len(picture.lanes) > _MOST:
        found.append(ink.dim(f"and {words.count(len(picture.lanes) - _MOST, 'line')} more", colours))
    for note in picture.notes:
        found += [ink.dim(line, colours) for line in ink.wrapped(note, width)]
    return "\n".join(found)


def _lane(picture: LineageGraph, spots: list[Spot], step: int) -> tuple[str, list[str]]:
    """The marks of its versions in their places, and what they are called."""
    first = spots[0]
    into = [link for link in picture.links if link.target == first.kin.id]
    line = ""
    if into:
        source = max((picture.by_id[link.source] for link in into), key=lambda spot: spot.depth)
        line = " " * (source.depth * step) + "╰"
    for at, spot in enumerate(spots):
        column = spot.depth * step
        fill = "─" if at or into else " "
        line += fill * (column - len(line)) + _mark(spot)
    called = [f"{m}" for spot in spots for m in spot.kin.marks]
    return line, called


def _mark(spot: Spot) -> str:
    if spot.kin.best:
        return "★"
    return "○" if spot.kin.state in LOST else "●"
