"""LoRA told by what it adds to the base's weights: a table of one version, and of what leads to another.

Owns the walk over modules, one pair of factors in memory at a time, the sums over modules, and that a module
of which nothing can be told says why instead. The numerics are in `adapters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from stemmata.codecs.workers import Threads, thread_count
from stemmata.compare.adapterfiles import Scale
from stemmata.compare.factors import Adapter, FillObject, Pair, Reader
from stemmata.compare.floats import ROUNDING
from stemmata.errors import Damage

if TYPE_CHECKING:
    from stemmata.compare.adapters import Product, Relation, Spectrum

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class ModuleDelta:
    """Delta-W of one module."""

    module: str
    kind: str = ""
    """linear, embedding or convolution."""
    rank: int | None = None
    """r, as the factors' shapes have it."""
    shape: tuple[int, int] | None = None
    """Outputs and inputs; those of a convolution times its kernel."""
    dtype: str = ""
    scale: Scale = Scale(None)  # noqa: RUF009
    """Where it is not known, every norm is that of B A alone."""
    spectrum: Spectrum | None = None
    magnitude: float | None = None
    """Norm of DoRA's magnitude vector."""
    problem: str = ""
    """Why there is no spectrum; a clause."""

    @property
    def norm(self) -> float | None:
        """The Frobenius norm of delta-W; None where it or the scale is not known."""
        return None if self.spectrum is None or self.scale.value is None else self.spectrum.norm

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "r": self.rank,
            "shape": list(self.shape) if self.shape else None,
            "dtype": self.dtype,
            "scale": self.scale.value,
            "scale_unknown": self.scale.unknown,
            "dora_magnitude_norm": self.magnitude,
            "problem": self.problem,
            **({} if self.spectrum is None else self.spectrum.to_dict()),
        }


@dataclass(frozen=True)
class DeltaTable:
    """The LoRA of one version, module by module."""

    modules: tuple[ModuleDelta, ...]
    notes: tuple[str, ...] = ()
    """What is to be known of all of them."""
    biases: int = 0
    """Bias vectors of factors: no part of delta-W, and left out."""

    @cached_property
    def told(self) -> tuple[ModuleDelta, ...]:
        """Those with a spectrum."""
        return tuple(m for m in self.modules if m.spectrum is not None)

    @property
    def norm(self) -> float | None:
        """Of all delta-Ws together: the root of the sum of squares; None if one's is not known."""
        norms = [m.norm for m in self.modules]
        return _root(x for x in norms if x is not None) if norms and None not in norms else None

    @property
    def effective_rank(self) -> float | None:
        """The mean over modules."""
        found = [m.spectrum.effective_rank for m in self.modules if m.spectrum is not None]
        return sum(found) / len(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "norm": self.norm,
            "effective_rank": self.effective_rank,
            "notes": list(self.notes),
            "biases": self.biases,
            "modules": {m.module: m.to_dict() for m in self.modules},
        }


@dataclass(frozen=True, slots=True)
class ModuleMove:
    """One module that both sides adapt."""

    module: str
    a: ModuleDelta
    b: ModuleDelta
    relation: Relation | None = None
    problem: str = ""
    """Why there is no relation; a clause."""
    identical: bool = False
    """The same stored factors at the same scale."""

    @property
    def difference(self) -> float | None:
        return self.relation.difference if self.relation else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "identical": self.identical,
            "problem": self.problem,
            **({} if self.relation is None else self.relation.to_dict()),
        }


@dataclass(frozen=True)
class DeltaDiff:
    """What leads from the delta-Ws of version a to those of b."""

    a: DeltaTable
    b: DeltaTable
    common: tuple[ModuleMove, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def added(self) -> tuple[ModuleDelta, ...]:
        """Modules that b alone adapts."""
        return _apart(self.b, self.a)

    @cached_property
    def dropped(self) -> tuple[ModuleDelta, ...]:
        return _apart(self.a, self.b)

    @cached_property
    def difference(self) -> float | None:
        """The norm of b - a over all modules, what one side does not adapt counted as zero there.
        None if one module could not be compared."""
        found = [m.difference for m in self.common] + [m.norm for m in (*self.added, *self.dropped)]
        return _root(x for x in found if x is not None) if found and None not in found else None

    @property
    def relative(self) -> float | None:
        """The difference by the norm of a."""
        return self.difference / self.a.norm if self.difference is not None and self.a.norm else None

    @property
    def cosine(self) -> float | None:
        """Between both adapters as one long vector each."""
        inner = [m.relation.inner if m.relation else None for m in self.common]
        if None in inner or not self.a.norm or not self.b.norm:
            return None
        together = math.fsum(x for x in inner if x is not None)
        return max(-1.0, min(1.0, together / self.a.norm / self.b.norm))

    @property
    def equal(self) -> bool:
        """Every module's delta-W is the same within the rounding of the stored types."""
        return not (self.added or self.dropped) and all(m.relation and m.relation.equal for m in self.common)

    def most_moved(self) -> list[ModuleMove]:
        """Modules whose delta-W differs, those with the greatest difference first."""
        moved = [m for m in self.common if m.relation is not None and not m.relation.equal]
        return sorted(moved, key=lambda m: -(m.difference or 0.0))

    def to_dict(self) -> dict[str, Any]:
        return {
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "difference": self.difference,
            "relative": self.relative,
            "cosine": self.cosine,
            "equal": self.equal,
            "added": [m.module for m in self.added],
            "dropped": [m.module for m in self.dropped],
            "notes": list(self.notes),
            "modules": {m.module: m.to_dict() for m in self.common},
        }


def _root(norms: Iterable[float]) -> float:
    return math.hypot(*norms)


def _apart(side: DeltaTable, other: DeltaTable) -> tuple[ModuleDelta, ...]:
    there = {m.module for m in other.modules}
    return tuple(m for m in side.modules if m.module not in there)


def table(adapter: Adapter, fill: FillObject) -> DeltaTable:
    """Read and decompose every pair of factors."""
    reader = Reader(fill)
    told = _in_order(lambda pair: _measure(pair, reader)[0], list(adapter.pairs.values()))
    return _table(adapter, told)


def _in_order(work: Callable[[_In], _Out], items: Sequence[_In]) -> Iterator[_Out]:
    """What `work` makes of all items, several at a time, in their order: a pair for each thread in memory."""
    if not items:
        return
    with Threads(min(thread_count(), len(items)), thread_name_prefix="stemmata-factors") as pool:
        made = [pool.submit(work, item) for item in items]
        made.reverse()
        try:
            while made:
                yield made.pop().result()
        finally:
            for one in made:
                one.cancel()


def _table(adapter: Adapter, told: Iterable[ModuleDelta]) -> DeltaTable:
    broken = (ModuleDelta(module, problem=why) for module, why in adapter.problems.items())
    return DeltaTable((*told, *broken), adapter.notes, adapter.biases)


def _measure(pair: Pair, reader: Reader) -> tuple[ModuleDelta, Product | None]:
    """A module's row, and delta-W itself; None where the row says why there is none."""
    from stemmata.compare import adapters

    delta = ModuleDelta(pair.module, pair.kind, pair.rank, dtype=pair.dtype, scale=pair.scale)
    try:
        b, a = reader.pair(pair)
        magnitude = reader.norm(pair.magnitude) if pair.magnitude is not None else None
    except Damage as damage:
        # The rest can be told all the same, and this is not handed out.
        return replace(delta, problem=f"its factors cannot be read: {damage.kind}"), None
    delta = replace(delta, shape=(b.shape[0], a.shape[1]), magnitude=magnitude)
    scale = 1.0 if pair.scale.value is None else pair.scale.value
    rounding = ROUNDING[pair.b.dtype], ROUNDING[pair.a.dtype]
    try:
        found = adapters.product(b, a, scale, rounding=rounding)
    except adapters.NotComparable as reason:
        return replace(delta, problem=str(reason)), None
    return replace(delta, spectrum=found.spectrum), found


def compare_deltas(
    a: Adapter, b: Adapter, fill_a: FillObject, fill_b: FillObject, notes: tuple[str, ...] = ()
) -> DeltaDiff:
    """Both tables, and how each module that both adapt moved."""
    readers = Reader(fill_a), Reader(fill_b)

    def one(module: str) -> tuple[ModuleDelta | None, ModuleDelta | None, ModuleMove | None]:
        first, second = a.pairs.get(module), b.pairs.get(module)
        left, of_left = _measure(first, readers[0]) if first is not None else (None, None)
        # What is stored once is read once.
        same = first is not None and second is not None and first.same_as(second)
        if same:
            right, of_right = left, of_left
        else:
            right, of_right = _measure(second, readers[1]) if second is not None else (None, None)
        if left is None or right is None:
            return left, right, None
        return left, right, _move(left, right, of_left, of_right, identical=same)

    told = list(_in_order(one, list(dict.fromkeys([*a.pairs, *b.pairs]))))
    tables = _table(a, (x for x, _, _ in told if x)), _table(b, (x for _, x, _ in told if x))
    moves = [x for _, _, x in told if x]
    moves += _unusable(*tables, {m.module for m in moves})
    return DeltaDiff(*tables, tuple(moves), notes)


def _unusable(a: DeltaTable, b: DeltaTable, done: set[str]) -> list[ModuleMove]:
    """Modules of both sides that one of them holds no usable factors of."""
    others = {m.module: m for m in b.modules}
    return [
        ModuleMove(m.module, m, others[m.module], problem=m.problem or others[m.module].problem)
        for m in a.modules
        if m.module in others and m.module not in done
    ]


def _move(
    a: ModuleDelta, b: ModuleDelta, found_a: Product | None, found_b: Product | None, *, identical: bool
) -> ModuleMove:
    from stemmata.compare import adapters

    move = ModuleMove(a.module, a, b, identical=identical)
    if found_a is None or found_b is None:
        return replace(move, problem=a.problem or b.problem)
    if identical:
        return replace(move, relation=adapters.relate_to_itself(found_a))
    try:
        relation = adapters.relate(found_a, found_b)
    except adapters.NotComparable as reason:
        return replace(move, problem=str(reason))
    unknown = next((s.scale.unknown for s in (a, b) if s.scale.value is None), "")
    if unknown:
        why = f"its scale is not known ({unknown}): cosine and angles alone"
        return replace(move, relation=relation.up_to_scale(), problem=why)
    return replace(move, relation=relation)
