"""Blamed: what is told of tensors that moved. Owns how several are told of as one, and what a layer is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan
from typing import Any, Literal

from stemmata.compare.statistics import Movement, together
from stemmata.histories.line import Place

How = Literal["moved", "refitted", "came", "earlier"]
KnownBy = Literal["statistics", "weights", "digests"]


@dataclass(frozen=True, slots=True)
class Move:
    """What one version did to a tensor, or to several together."""

    how: How
    """moved; refitted: it has another dtype or shape since; came: it is not in the version before; earlier:
    it was not moved up to here as far as is known, and what came before cannot be read."""
    place: Place
    movement: Movement | None = None
    """How far; None where nobody knows."""
    known_by: KnownBy = "digests"
    """What told how far: what was kept at the save, the weights, or nothing but that they differ."""
    was: str = ""
    """What it was before, such as another dtype; its name then, where that was another one."""
    broke: int = 0
    """Elements that are NaN or infinite since; what is known of how far leaves these out."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "how": self.how,
            "version": self.place.to_dict(),
            "movement": self.movement.to_dict() if self.movement is not None else None,
            "known_by": self.known_by,
            "was": self.was,
            "broke": self.broke,
        }


@dataclass(frozen=True, slots=True)
class Blamed:
    """A tensor, or a layer of several, and the version that is to blame."""

    name: str
    elements: int
    move: Move
    tensors: tuple[str, ...]
    """The tensor itself, or those of the layer."""
    moved: int
    """How many of them that version moved."""
    moves: tuple[Move, ...] = ()
    """What was seen on the way back, the newest first; down to where it came from if `most` was asked for."""

    def to_dict(self) -> dict[str, Any]:
        found = {"name": self.name, "elements": self.elements, **self.move.to_dict()}
        return {**found, "tensors": len(self.tensors), "tensors_moved": self.moved}


@dataclass(frozen=True, repr=False)
class Blame:
    """Who moved what of a version."""

    version: Place
    tensors: tuple[Blamed, ...]
    """In the order of the files."""
    most: bool
    at_least: float
    looked_at: int
    """Versions on the way back."""
    unmeasured: tuple[Place, ...]
    """Versions that moved something, and have no statistics that tell how far."""
    unreadable: tuple[Place, ...]
    """Versions whose list of tensors could not be read: it is gone, or damaged."""
    read: int = 0
    """Bytes of weights that were read for it."""

    @cached_property
    def layers(self) -> tuple[Blamed, ...]:
        """The same, layer by layer."""
        grouped: dict[str, list[str]] = {}
        for tensor in self.tensors:
            grouped.setdefault(layer_of(tensor.name), []).append(tensor.name)
        return tuple(self.together(name, tensors) for name, tensors in grouped.items())

    def together(self, name: str, tensors: Iterable[str]) -> Blamed:
        """Several tensors as one, called `name`: what last moved any of them, or moved all the furthest."""
        those = [self._by_name[tensor] for tensor in tensors]
        if len(those) == 1:
            return replace(those[0], name=name)
        by_place: dict[tuple[int, bool], list[Move]] = {}
        for each in those:
            for move in each.moves:
                by_place.setdefault((move.place.back, move.how in ("came", "earlier")), []).append(move)
        moves = [_as_one(by_place[key]) for key in sorted(by_place)]
        chosen = to_blame(moves, most=self.most)
        moved = sum(any(_same(move, chosen) for move in each.moves) for each in those)
        names = tuple(each.name for each in those)
        return Blamed(name, sum(e.elements for e in those), chosen, names, moved, tuple(moves))

    @cached_property
    def _by_name(self) -> dict[str, Blamed]:
        return {tensor.name: tensor for tensor in self.tensors}

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "version": self.version.to_dict(),
            "most": self.most,
            "at_least": self.at_least,
            "layers": [layer.to_dict() for layer in self.layers],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
            "looked_at": self.looked_at,
            "unmeasured": [each.to_dict() for each in self.unmeasured],
            "unreadable": [each.to_dict() for each in self.unreadable],
            "bytes_read": self.read,
        }

    def __repr__(self) -> str:
        name = f"{self.version.model}@{self.version.name}"
        return f"<Blame of {name}: {len(self.tensors)} tensors, {self.looked_at} versions looked at>"


def layer_of(name: str) -> str:
    """The layer that a tensor belongs to: its name up to the first number, else without its last part."""
    parts = name.split(".")
    numbered = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    if numbered is not None and numbered < len(parts) - 1:
        return ".".join(parts[: numbered + 1])
    return ".".join(parts[:-1]) or name


def to_blame(moves: Sequence[Move], *, most: bool) -> Move:
    """Of what was seen, the newest first: the newest, or the furthest. By the norm of the change itself: from
    zero, as a LoRA's B begins, any step is infinitely far."""
    known = [m for m in moves if m.movement is not None and not isnan(m.movement.change)]
    if most and known:
        # Nothing is further than what is no number any more.
        return max(known, key=lambda m: (m.broke > 0, m.movement.change if m.movement is not None else 0.0))
    return moves[0]


def _as_one(moves: Sequence[Move]) -> Move:
    """What one version did to several tensors."""
    first = moves[0]
    far = together(m.movement for m in moves if m.movement is not None)
    whole = far is not None and all(m.movement is not None for m in moves)
    hows = {m.how for m in moves}
    how: How = first.how if len(hows) == 1 else "moved" if hows & {"moved", "refitted"} else "came"
    known_by: KnownBy = first.known_by if whole else "digests"
    return Move(how, first.place, far if whole else None, known_by, broke=sum(m.broke for m in moves))


def _same(move: Move, chosen: Move) -> bool:
    ended = ("came", "earlier")
    return move.place.back == chosen.place.back and (move.how in ended) == (chosen.how in ended)
