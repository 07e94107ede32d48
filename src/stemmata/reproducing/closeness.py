"""Closeness: how near the weights of two versions are, element by element, against a stated tolerance.

Digests decide where they can: a tensor whose objects have equal digests is not read. What differs is read in
pieces of at most 16 Mi elements. Two versions may lie in two repositories. Quantised and packed tensors, and
those of types that are no numbers here, are equal or they are not: no tolerance holds for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from stemmata.codecs.dtypes import DTYPES, DType, dtype_of
from stemmata.compare.architectures import is_weights, opaque_files
from stemmata.compare.packed import packed_forms
from stemmata.compare.tensors import FilesDiff, Tensor, TensorChange, TensorsDiff, compare_tensors
from stemmata.compare.unnamed import unnamed_tensors
from stemmata.containers.base import MAX_ELEMENTS
from stemmata.errors import InvalidArgument
from stemmata.ids import Digest
from stemmata.records import store_number
from stemmata.version import Version

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from stemmata.objects.room import Room

_STEP = 256 << 10
"""Elements that are held against each other at a time."""
_TORCH_NAMES = {
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}


class Tolerance(NamedTuple):
    """b is near a where |b - a| <= atol + rtol |a|."""

    rtol: float
    atol: float


DEFAULTS: Mapping[str, Tolerance] = {
    # Those of torch.testing.assert_close (torch 2.6); of 8-bit floats, which it has none for, one step.
    "F8_E5M2": Tolerance(0.25, 1e-5),
    "F8_E4M3": Tolerance(0.125, 1e-5),
    "F16": Tolerance(1e-3, 1e-5),
    "BF16": Tolerance(1.6e-2, 1e-5),
    "F32": Tolerance(1.3e-6, 1e-5),
    "F64": Tolerance(1e-7, 1e-7),
}
"""By the type of a tensor. All others have none: they are equal bit for bit, or they are not."""

Given = float | Mapping[str, float] | None
"""A tolerance as it is given: of all float types, by type (`F32` or `float32`), or the default."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """One tensor (or file) that is not bit for bit the same."""

    tensor: str
    """Empty for a file whose tensors cannot be told apart."""
    file: str
    dtype: str
    shape: tuple[int, ...]
    within: bool
    """Whether all of it is within the tolerance."""
    differing: int | None = None
    """Elements whose bits differ; None where elements cannot be compared."""
    beyond: int | None = None
    """Elements that are further apart than the tolerance allows."""
    largest: float | None = None
    """The greatest |b - a|; infinite where one side alone is no (finite) number; None of what is no float."""
    at: tuple[int, ...] | None = None
    """Where that is."""
    before: float | int | None = None
    after: float | int | None = None
    why: str = ""
    """Why elements cannot be compared, or have no tolerance."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "tensor": self.tensor,
            "file": self.file,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "within": self.within,
            "differing": self.differing,
            "beyond": self.beyond,
            "largest": _stored(self.largest),
            "at": list(self.at) if self.at is not None else None,
            "before": _stored(self.before),
            "after": _stored(self.after),
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Closeness:
    """Of all weights. `deviations`: those that differ, the largest first; what cannot be compared leads."""

    same: int = 0
    """Tensors and files of weights that are equal bit for bit."""
    whole: int = 0
    """Files among these in which no tensors can be told apart."""
    deviations: tuple[Deviation, ...] = ()
    read: int = 0
    """Bytes of weights that were read: 0 where digests told everything."""

    @property
    def within(self) -> bool:
        return all(each.within for each in self.deviations)


def tolerances_of(rtol: Given, atol: Given) -> dict[str, Tolerance]:
    """By type of float, what is allowed. Raises InvalidArgument."""
    found = dict(DEFAULTS)
    for argument, given in (("rtol", rtol), ("atol", atol)):
        if given is None:
            continue
        told = given if isinstance(given, Mapping) else dict.fromkeys(found, given)
        for name, value in told.items():
            word = _TORCH_NAMES.get(name, name)
            if word not in found:
                known = ", ".join(found)
                raise InvalidArgument(
                    argument=argument, reason=f"{name!r} is none of the float types {known}"
                )
            if not 0 <= value < math.inf:
                raise InvalidArgument(argument=argument, reason=f"{value} is no tolerance")
            found[word] = found[word]._replace(**{argument: float(value)})
    return found


def measure(a: Version, b: Version, files: FilesDiff, allowed: Mapping[str, Tolerance]) -> Closeness:
    """How near b's weights are to a's. `files` is how their files compare. Raises Damage."""
    # Where no file differs no tensor does: then no header is read.
    more = (_unnamed(a), _unnamed(b)) if files else ((), ())
    tensors = compare_tensors(a.tree(), b.tree(), *more)
    found = [*_missing(tensors), *_opaque(files, tensors)]
    forms = packed_forms(tensors)
    reading = _Reading(a, b)
    for change in (*tensors.refitted, *tensors.changed):
        found.append(_deviation(change, forms.get(change.name, ""), reading, allowed))
    told = {tensor.path for tensor in tensors.same}
    whole = sum(is_weights(file.path) and file.path not in told for file in files.same)
    deviations = tuple(sorted(found, key=_place))
    return Closeness(len(tensors.same) + whole, whole, deviations, reading.bytes)


def _unnamed(version: Version) -> Iterator[Tensor]:
    session = version.source
    return unnamed_tensors(version.tree(), partial(session.read_object, session.row(version.id)))


def _missing(tensors: TensorsDiff) -> Iterator[Deviation]:
    for part, why in ((tensors.removed, "the copy lacks it"), (tensors.added, "only the copy has it")):
        for each in part:
            yield Deviation(each.name, each.path, each.dtype, each.shape, within=False, why=why)


def _opaque(files: FilesDiff, tensors: TensorsDiff) -> Iterator[Deviation]:
    """Files of weights in which no tensors can be told apart."""
    words = {"changed": "their bytes differ, and no tensors can be told apart in it"}
    words |= {"removed": "the copy lacks it", "added": "only the copy has it"}
    for path, what in opaque_files(files, tensors):
        yield Deviation("", path, "", (), within=False, why=words[what])


def _deviation(
    change: TensorChange, form: str, reading: _Reading, allowed: Mapping[str, Tolerance]
) -> Deviation:
    a, b = change.a, change.b
    why = ""
    if change.retyped:
        why = f"{a.dtype or 'no type'} became {b.dtype or 'no type'}"
    elif change.reshaped:
        why = f"shape {_shape(a.shape)} became {_shape(b.shape)}"
    elif form:
        why = f"{form}: compared bit for bit"
    if why:
        return Deviation(change.name, a.path, a.dtype, a.shape, within=False, why=why)
    dtype = dtype_of(a.dtype)
    held = Held(dtype, allowed.get(a.dtype))
    reading.feed(change, held)
    return held.deviation(change)


def _place(found: Deviation) -> tuple[bool, float, str, str]:
    return found.largest is not None, -(found.largest or 0.0), found.tensor, found.file


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _stored(value: float | int | None) -> float | int | str | None:
    return store_number(value) if isinstance(value, float) else value


class Held:
    """Elements of one tensor held against another's, piece by piece."""

    def __init__(self, dtype: DType, tolerance: Tolerance | None) -> None:
        self._dtype, self._tolerance = dtype, tolerance
        self.itemsize = dtype.itemsize
        self._taken = 0
        self.differing = 0
        self.beyond = 0
        self.largest: float | None = None
        self._at: int | None = None
        self._values: tuple[float | int, float | int] | None = None

    def take(self, old: memoryview | bytes, new: memoryview | bytes) -> None:
        """The next elements of both, equally many."""
        import numpy as np

        word = f"<u{self._dtype.itemsize}"
        a, b = np.frombuffer(old, word), np.frombuffer(new, word)
        for begin in range(0, len(a), _STEP):
            left, right = a[begin : begin + _STEP], b[begin : begin + _STEP]
            places = np.flatnonzero(left != right)
            if len(places):
                self._hold(left[places], right[places], places + (self._taken + begin))
        self._taken += len(a)

    def skip(self, count: int) -> None:
        """The next elements are equal."""
        self._taken += count

    def _hold(self, a: npt.NDArray[Any], b: npt.NDArray[Any], places: npt.NDArray[np.intp]) -> None:
        """Elements whose bits differ."""
        self.differing += len(places)
        if self._tolerance is None:
            self.beyond += len(places)
            if self._at is None:
                self._at = int(places[0])
                self._values = self._number(a[0]), self._number(b[0])
            return
        import numpy as np

        from stemmata.compare.floats import to_float64

        x, y = (to_float64(side.tobytes(), self._dtype.word, side.shape) for side in (a, b))
        with np.errstate(all="ignore"):
            apart = np.abs(y - x)
            # NaN with other bits is NaN still; a number against NaN, or infinity, is no matter of size.
            alike = np.isnan(x) & np.isnan(y)
            apart = np.where(alike, 0.0, np.where(np.isfinite(apart), apart, np.inf))
            near = apart <= self._tolerance.atol + self._tolerance.rtol * np.abs(x)
        self.beyond += int(np.count_nonzero(~alike & (~near | np.isinf(apart))))
        most = int(np.argmax(apart))
        if self.largest is None or apart[most] > self.largest:
            self.largest, self._at = float(apart[most]), int(places[most])
            self._values = float(x[most]), float(y[most])

    def _number(self, bits: Any) -> int:
        signed = self._dtype.word.startswith("I")
        return int.from_bytes(bits.tobytes(), "little", signed=signed)

    def deviation(self, change: TensorChange) -> Deviation:
        import numpy as np

        at = None
        if self._at is not None:
            at = tuple(int(i) for i in np.unravel_index(self._at, change.a.shape or (1,)))
        before, after = self._values or (None, None)
        return Deviation(
            change.name,
            change.a.path,
            change.a.dtype,
            change.a.shape,
            within=not self.beyond,
            differing=self.differing,
            beyond=self.beyond,
            largest=self.largest,
            at=at if change.a.shape else None,
            before=before,
            after=after,
            why="" if self._tolerance is not None else f"{change.a.dtype} has no tolerance",
        )


class _Reading:
    """Reads two versions' tensors side by side, each from its own repository."""

    def __init__(self, a: Version, b: Version) -> None:
        self._sides = [(v.source.reader, v.source.packs(v.source.row(v.id))) for v in (a, b)]
        self._lent: Room | None = None
        self.bytes = 0

    def feed(self, change: TensorChange, held: Held) -> None:
        """All elements, an object of both at a time; equal objects are not read."""
        from stemmata.objects.room import Room

        self._lent = self._lent or Room()
        left = change.a.length // held.itemsize
        for pair in zip(change.a.objects, change.b.objects, strict=True):
            count = min(left, MAX_ELEMENTS)
            left -= count
            if pair[0] == pair[1]:
                held.skip(count)
                continue
            views: list[memoryview] = []
            try:
                for digest, (reader, packs) in zip(pair, self._sides, strict=True):
                    views.append(reader.lend(Digest.parse(digest), packs, self._lent))
                    self.bytes += len(views[-1])
                held.take(views[0], views[1])
            finally:
                for view in views:
                    self._lent.give_back(view)


assert set(DEFAULTS) == {dtype.word for dtype in DTYPES if dtype.is_float}
