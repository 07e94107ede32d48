"""Blame: which version last moved a tensor, and by how much. Owns how a tensor is followed back.

The lists of tensors of a version and of its parent tell by their digests what moved, and what was learnt at
the save (`compare.statistics`) how far. Weights are read only where that is not known and somebody asks. A
tensor that has another name in the parent, but the same numbers, is followed under that name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import isnan, prod
from typing import TypeAlias

from stemmata import weighing
from stemmata.catalog import queries
from stemmata.catalog.queries import VersionRow
from stemmata.compare.statistics import Movement, TensorStatistics
from stemmata.compare.tensors import Tensor, TensorChange, TensorsDiff, tensors_of
from stemmata.errors import StemmataError, TensorNotInVersion
from stemmata.histories.blamed import Blame, Blamed, How, KnownBy, Move, to_blame
from stemmata.histories.line import Place, Step, place, steps
from stemmata.session import Session

Progress = Callable[[int], None]
_Told: TypeAlias = tuple[Movement | None, KnownBy, int]
"""How far, what tells it, and how many elements are not finite since."""
_UNTOLD: _Told = (None, "digests", 0)
_NAMED = 5
"""Tensors that an error names of those that there are."""


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
            movement, source, broke = far.get(number, _UNTOLD)
            if broke or self._counts(movement, prod(change.b.shape)):
                how: How = "refitted" if change.retyped or change.reshaped else "moved"
                was = _fit(change) if how == "refitted" else _renamed(each)
                each.moves.append(Move(how, here, movement, source, was, broke))
                if not self._most:
                    gone.append(each)
            each.now = change.a
        self._drop(gone)
        self._tensors = earlier

    def _counts(self, movement: Movement | None, elements: int) -> bool:
        if movement is None or isnan(movement.relative):
            return True  # it moved; how far is not known
        if not movement.change and movement.unchanged < elements:
            return True  # what differs is not finite: no number tells how far
        return movement.relative >= self._at_least

    def _drop(self, gone: Iterable[_Open]) -> None:
        done = {id(each) for each in gone}
        self.open = [each for each in self.open if id(each) not in done]

    # --- how far --------------------------------------------------------------------------------

    def _how_far(
        self, row: VersionRow, before: VersionRow, changed: dict[int, TensorChange], here: Place
    ) -> dict[int, _Told]:
        if not changed:
            return {}
        found: dict[int, _Told] = {}
        learnt = self._learnt(row, before)
        broken = any(kept.nonfinite for kept in learnt.values())
        earlier = weighing.rows_of(self._session, before) if broken else {}
        for number, change in changed.items():
            kept = learnt.get((change.b.path, change.b.name))
            if kept is not None:
                then = earlier.get((change.a.path, change.a.name))
                broke = _broke(kept, then, prod(change.b.shape)) if then is not None else 0
                found[number] = (kept.movement, "statistics", broke)
        missing = {n: c for n, c in changed.items() if n not in found and not c.reshaped}
        if missing and self._weights:
            # By their numbers here: two of one name would be taken for one.
            asked = tuple(TensorChange(str(n), c.a, c.b) for n, c in missing.items())
            told = weighing.weigh(
                self._session, before, row, TensorsDiff((), (), asked, (), ()), self._progress
            )
            self._read += told.read
            found.update({int(name): (movement, "weights", 0) for name, movement in told.moved.items()})
        if any(number not in found for number in missing):
            self._unmeasured[here.back] = here
        return found

    def _learnt(self, row: VersionRow, before: VersionRow) -> dict[tuple[str, str], TensorStatistics]:
        """What was kept of a version's tensors and how far they are from those of the version before."""
        kept = self._session.record(row).statistics
        if kept is None or kept.against != before.id.hex:
            return {}
        rows = weighing.rows_of(self._session, row)
        return {place_of: r for place_of, r in rows.items() if r.movement is not None}

    def _by_statistics_alone(self, step: Step, here: Place) -> None:
        """The version before is gone, with its list of tensors: what was learnt here tells of this step."""
        if step.before is None or not (learnt := self._learnt(step.row, step.before)):
            self._end(here, "earlier")
            return
        for each in self.open:
            kept = learnt.get((each.now.path, each.now.name))
            if kept is None or (movement := kept.movement) is None:
                # It came with this version, or had another name or shape before: nothing tells which.
                each.moves.append(Move("earlier", here, was=_renamed(each)))
                continue
            still = not movement.change and movement.unchanged == each.elements
            if not still and self._counts(movement, each.elements):
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
            move = to_blame(each.moves, most=self._most)
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


def _broke(now: TensorStatistics, then: TensorStatistics, elements: int) -> int:
    """How many elements are finite no more, as far as counts tell: where others moved as well, those that
    became finite hide as many."""
    more, movement = now.nonfinite - then.nonfinite, now.movement
    if movement is not None and not movement.largest:
        # All that differ are not finite on one side: those that were not, and those that are not now.
        return max(0, (elements - movement.unchanged + more) // 2)
    return max(0, more)


def _renamed(each: _Open) -> str:
    bare = each.name.rpartition(":")[2]
    return each.now.name if each.now.name not in (each.name, bare) else ""


def _fit(change: TensorChange) -> str:
    """What it was before: dtype and shape."""
    return f"{change.a.dtype} {'×'.join(map(str, change.a.shape)) or 'scalar'}"
