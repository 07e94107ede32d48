"""Blame: which version last moved a tensor, and by how much. Owns how a tensor is followed back.

The lists of tensors of a version and of its parent tell by their digests what moved, and what was learnt at
the save (`compare.statistics`) how far. Weights are read only where that is not known and somebody asks. A
tensor that has another name in the parent, but the same numbers, is followed under that name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from math import isnan, prod
from typing import Any, Literal

from stemmata import weighing
from stemmata.catalog import queries
from stemmata.catalog.queries import VersionRow
from stemmata.compare.statistics import Movement, together
from stemmata.compare.tensors import Tensor, TensorChange, TensorsDiff, tensors_of
from stemmata.errors import StemmataError, TensorNotInVersion
from stemmata.histories.line import Place, Step, place, steps
from stemmata.session import Session

Progress = Callable[[int], None]
How = Literal["moved", "refitted", "came", "earlier"]
KnownBy = Literal["statistics", "weights", "digests"]
_UNTOLD: tuple[Movement | None, KnownBy] = (None, "digests")
_NAMED = 5
"""Tensors that an error names of those that there are."""


@dataclass(frozen=True, slots=True)
class Move:
    """What one version did to a tensor, or to several together."""

    how: How
    """moved; refitted: it has another dtype or shape since; came: it is not in the version before; earlier:
    it was not moved up to here, and what came before cannot be read."""
    place: Place
    movement: Movement | None = None
    """How far; None where nobody knows."""
    known_by: KnownBy = "digests"
    """What told how far: what was kept at the save, the weights, or nothing but that they differ."""
    was: str = ""
    """What it was before, such as another dtype; its name then, where that was another one."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "how": self.how,
            "version": self.place.to_dict(),
            "movement": self.movement.to_dict() if self.movement is not None else None,
            "known_by": self.known_by,
            "was": self.was,
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


@dataclass(frozen=True)
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
        chosen = _chosen(moves, most=self.most)
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


def blame(
    session: Session,
    row: VersionRow,
    pattern: str | None = None,
    *,
    most: bool = False,
    at_least: float = 0.0,
    weights: bool = False,
    progress: Progress | None = None,
) -> Blame:
    """Who last moved each tensor of a version, or (`most`) moved it the furthest; see `Comparing.blame`.

    Raises TensorNotInVersion if `pattern` is given and fits none; Damage if the version's own list of tensors
    cannot be read, or weights that have to be.
    """
    walk = _Walk(session, row, pattern, most=most, at_least=at_least, weights=weights, progress=progress)
    for step in steps(session, row):
        walk.take(step)
        if not walk.open:
            break
    return walk.told()


def layer_of(name: str) -> str:
    """The layer that a tensor belongs to: its name up to the first number, else without its last part."""
    parts = name.split(".")
    numbered = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    if numbered is not None and numbered < len(parts) - 1:
        return ".".join(parts[: numbered + 1])
    return ".".join(parts[:-1]) or name


def fits(name: str, pattern: str) -> bool:
    """Whether a glob fits the whole name, or words without one are whole parts of it: `layer.3`, `q_proj`."""
    if re.search(r"[*?\[]", pattern):
        return fnmatchcase(name, pattern)
    return f".{pattern}." in f".{name}."


# --- the way back ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """A tensor that is still followed: its name here, and where it is in the version that is looked at."""

    name: str
    elements: int
    now: Tensor
    moves: list[Move] = field(default_factory=list)


class _Walk:
    def __init__(
        self,
        session: Session,
        row: VersionRow,
        pattern: str | None,
        *,
        most: bool,
        at_least: float,
        weights: bool,
        progress: Progress | None,
    ) -> None:
        self._session, self._row = session, row
        self._most, self._at_least = most, at_least
        self._weights, self._progress = weights, progress
        self._read = self._looked_at = 0
        self._unmeasured: dict[int, Place] = {}
        self._unreadable: dict[int, Place] = {}
        self._tensors: dict[str, Tensor] | None = _named(tensors_of(session.tree(row)))
        known = self._tensors
        chosen = [name for name in known if pattern is None or fits(name, pattern)]
        if pattern is not None and not chosen:
            shown = ", ".join(list(known)[:_NAMED]) + (", …" if len(known) > _NAMED else "")
            hint = f"it has: {shown}" if known else "it has no tensors that can be told apart"
            raise TensorNotInVersion(version=row.id.short, name=pattern, hint=hint)
        self._all = [_Open(name, prod(known[name].shape), known[name]) for name in chosen]
        self.open = list(self._all)

    def take(self, step: Step) -> None:
        """Look at what a version made of the one before it."""
        self._looked_at += 1
        here = place(self._session, step)
        if step.parent is None:
            self._end(here, "came")
        elif step.before is None:
            self._end(here, "earlier")
        else:
            self._compare(step, here, step.before)

    def _end(self, here: Place, how: How) -> None:
        for each in self.open:
            each.moves.append(Move(how, here, was=_renamed(each)))
        self.open = []

    def _compare(self, step: Step, here: Place, before: VersionRow) -> None:
        earlier = self._tensors_of(before, here.back + 1)
        if earlier is None:
            self._by_statistics_alone(step, here)
            return
        names = set(self._tensors or ())
        by_digest: dict[object, list[str]] = {}
        for name, tensor in earlier.items():
            if name not in names:
                by_digest.setdefault(_numbers(tensor), []).append(name)
        changed: dict[int, TensorChange] = {}
        gone: list[_Open] = []
        for place_in, each in enumerate(self.open):
            found = _counterpart(each.now, earlier)
            others = by_digest.get(_numbers(each.now), [])
            if found is None and len(others) == 1:
                found = earlier[others[0]]  # it was called so
            if found is None:
                each.moves.append(Move("came", here, was=_renamed(each)))
                gone.append(each)
            elif _numbers(found) != _numbers(each.now):
                changed[place_in] = TensorChange(each.name, found, each.now)
            else:
                each.now = found
        far = self._how_far(step.row, before, changed, here)
        for number, change in changed.items():
            each = self.open[number]
            movement, source = far.get(number, _UNTOLD)
            if self._counts(movement):
                how: How = "refitted" if change.retyped or change.reshaped else "moved"
                was = _fit(change) if how == "refitted" else _renamed(each)
                each.moves.append(Move(how, here, movement, source, was))
                if not self._most:
                    gone.append(each)
            each.now = change.a
        self._drop(gone)
        self._tensors = earlier

    def _counts(self, movement: Movement | None) -> bool:
        if movement is None or isnan(movement.relative):
            return True  # it moved; how far is not known
        return movement.relative >= self._at_least

    def _drop(self, gone: Iterable[_Open]) -> None:
        done = {id(each) for each in gone}
        self.open = [each for each in self.open if id(each) not in done]

    # --- how far --------------------------------------------------------------------------------

    def _how_far(
        self, row: VersionRow, before: VersionRow, changed: dict[int, TensorChange], here: Place
    ) -> dict[int, tuple[Movement | None, KnownBy]]:
        if not changed:
            return {}
        found: dict[int, tuple[Movement | None, KnownBy]] = {}
        learnt = self._learnt(row, before)
        for number, change in changed.items():
            kept = learnt.get((change.b.path, change.b.name))
            if kept is not None:
                found[number] = (kept, "statistics")
        missing = {n: c for n, c in changed.items() if n not in found and not c.reshaped}
        if missing and self._weights:
            # By their numbers here: two of one name would be taken for one.
            asked = tuple(TensorChange(str(n), c.a, c.b) for n, c in missing.items())
            told = weighing.weigh(
                self._session, before, row, TensorsDiff((), (), asked, (), ()), self._progress
            )
            self._read += told.read
            found.update({int(name): (movement, "weights") for name, movement in told.moved.items()})
        if any(number not in found for number in missing):
            self._unmeasured[here.back] = here
        return found

    def _learnt(self, row: VersionRow, before: VersionRow) -> dict[tuple[str, str], Movement]:
        """How far each tensor of a version is from that of the version before, as it was kept."""
        kept = self._session.record(row).statistics
        if kept is None or kept.against != before.id.hex:
            return {}
        rows = weighing.rows_of(self._session, row)
        return {place_of: r.movement for place_of, r in rows.items() if r.movement is not None}

    def _by_statistics_alone(self, step: Step, here: Place) -> None:
        """The version before is gone, with its list of tensors: what was learnt here tells of this step."""
        if step.before is None or not (learnt := self._learnt(step.row, step.before)):
            self._end(here, "earlier")
            return
        for each in self.open:
            movement = learnt.get((each.now.path, each.now.name))
            if movement is None:
                each.moves.append(Move("came", here, was=_renamed(each)))
                continue
            still = not movement.change and movement.unchanged == each.elements
            if not still and self._counts(movement):
                each.moves.append(Move("moved", here, movement, "statistics", _renamed(each)))
                if not self._most:
                    continue
            each.moves.append(Move("earlier", here, was=_renamed(each)))
        self.open = []

    def _tensors_of(self, row: VersionRow, back: int) -> dict[str, Tensor] | None:
        """None for a version whose bytes are gone, or damaged."""
        if row.state != "forgotten":
            try:
                return _named(tensors_of(self._session.tree(row)))
            except StemmataError:
                pass  # damaged, or collected since: what is known of the later ones still stands
        model = queries.model_name(self._session.catalog.connection, row.model)
        self._unreadable[back] = Place(row.id, model, row.name, row.state, row.created_at, back)
        return None

    # --- the answer -----------------------------------------------------------------------------

    def told(self) -> Blame:
        tensors = []
        for each in self._all:
            move = _chosen(each.moves, most=self._most)
            tensors.append(Blamed(each.name, each.elements, move, (each.name,), 1, tuple(each.moves)))
        model = queries.model_name(self._session.catalog.connection, self._row.model)
        row = self._row
        return Blame(
            version=Place(row.id, model, row.name, row.state, row.created_at, 0),
            tensors=tuple(tensors),
            most=self._most,
            at_least=self._at_least,
            looked_at=self._looked_at,
            unmeasured=tuple(self._unmeasured.values()),
            unreadable=tuple(self._unreadable.values()),
            read=self._read,
        )


def _chosen(moves: Sequence[Move], *, most: bool) -> Move:
    """Of what was seen, the newest first: the newest, or the furthest. By the norm of the change itself: from
    zero, as a LoRA's B begins, any step is infinitely far."""
    known = [m for m in moves if m.movement is not None and not isnan(m.movement.change)]
    if most and known:
        return max(known, key=lambda m: m.movement.change if m.movement is not None else 0.0)
    return moves[0]


def _as_one(moves: Sequence[Move]) -> Move:
    """What one version did to several tensors."""
    first = moves[0]
    far = together(m.movement for m in moves if m.movement is not None)
    whole = far is not None and all(m.movement is not None for m in moves)
    hows = {m.how for m in moves}
    how: How = first.how if len(hows) == 1 else "moved" if hows & {"moved", "refitted"} else "came"
    return Move(how, first.place, far if whole else None, first.known_by if whole else "digests")


def _same(move: Move, chosen: Move) -> bool:
    ended = ("came", "earlier")
    return move.place.back == chosen.place.back and (move.how in ended) == (chosen.how in ended)


def _named(tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    """By name; by `path:name` where several files have one of that name."""
    every = list(tensors)
    names = Counter(tensor.name for tensor in every)
    return {t.name if names[t.name] == 1 else f"{t.path}:{t.name}": t for t in every}


def _counterpart(tensor: Tensor, earlier: dict[str, Tensor]) -> Tensor | None:
    """The tensor of that name, whatever file it lies in; of several that of the same file."""
    return earlier.get(tensor.name) or earlier.get(f"{tensor.path}:{tensor.name}")


def _numbers(tensor: Tensor) -> object:
    return tensor.objects, tensor.dtype, tensor.shape


def _renamed(each: _Open) -> str:
    bare = each.name.rpartition(":")[2]
    return each.now.name if each.now.name not in (each.name, bare) else ""


def _fit(change: TensorChange) -> str:
    """What it was before: dtype and shape."""
    return f"{change.a.dtype} {'×'.join(map(str, change.a.shape)) or 'scalar'}"
