"""The inner loops of the codecs, in numpy. Owns what FORMAT.md, section 5, says of them.

It runs where nothing was compiled; elsewhere `native_kernels` has the same functions. All of them take whole
frames: lengths were bounded before. Arrays of bytes are one-dimensional and contiguous; elements lie in them
little-endian, whatever the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stemmata.codecs.dtypes import BLOCK, DType
from stemmata.codecs.faults import DamagedFault

Bytes: TypeAlias = npt.NDArray[np.uint8]
_Words: TypeAlias = npt.NDArray[Any]

SAME, SCATTERED, DRIFTED = 0, 1, 2
"""What a block of elements did: nothing, anything, or all the same way, as weight decay moves them."""
GROUP_MIN = 4096
"""Elements from which a group of keys is coded by itself."""
_SMALL = 16
_DRIFT_BITS = 6
_MOSTLY = (19, 20)
_WORDS: dict[int, np.dtype[Any]] = {
    1: np.dtype("<u1"),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
}
_SUB = {1: 3, 2: 3, 4: 3, 8: 2}


@dataclass(frozen=True, slots=True)
class DeltaParts:
    """A frame's difference from its base, taken apart.

    `classes`: one byte a block. `tokens`: of scattered elements, one byte each, group after group, `groups`
    saying how many belong to each. `raw`: the bits that the tokens leave out. `low`, `high`: the two bytes of
    drifted elements' differences, in the order of their keys.
    """

    classes: Bytes
    groups: Sequence[int]
    tokens: Bytes
    raw: Bytes
    low: Bytes
    high: Bytes


@dataclass(frozen=True, slots=True)
class Groups:
    """How the elements of a frame that leans on a base are grouped: that and the classes tell."""

    counts: Sequence[int]
    """Scattered elements of each group."""
    of_key: Bytes
    """The group of each key."""
    drifted: int


def delta_split(data: Bytes, base: Bytes, dtype: DType) -> DeltaParts:
    """Take the difference between two frames of the same length apart."""
    x, b = _words(data, dtype), _words(base, dtype)
    u = _zigzag(_difference(x, b, dtype), dtype)
    classes = _classes(u, dtype)
    of_element = np.repeat(classes, BLOCK)[: len(u)]
    groups, of_key = _groups(_keys(b[of_element == SCATTERED], dtype), dtype)
    order = _in_groups(b, of_element, of_key, dtype)
    tokens, widths = _tokens(u[order], dtype)
    raw = _pack(u[order], widths, groups)
    drifted = _drifted(b, of_element, dtype)
    moved = u[drifted].astype(np.uint16) if len(drifted) else np.zeros(0, np.uint16)
    low, high = (moved & 0xFF).astype(np.uint8), (moved >> 8).astype(np.uint8)
    return DeltaParts(classes, groups, tokens, raw, low, high)


def delta_groups(base: Bytes, classes: Bytes, dtype: DType) -> Groups:
    """How many elements each group has, and how many drifted. Raises DamagedFault for what no class is."""
    _require_classes(classes, dtype)
    b = _words(base, dtype)
    of_element = np.repeat(classes, BLOCK)[: len(b)]
    counts, of_key = _groups(_keys(b[of_element == SCATTERED], dtype), dtype)
    return Groups(counts, of_key, int((of_element == DRIFTED).sum()))


def delta_join(base: Bytes, groups: Groups, parts: DeltaParts, dtype: DType, into: Bytes) -> None:
    """Put a frame together again, from parts as long as `delta_groups` says of that base. Raises
    DamagedFault."""
    _require_classes(parts.classes, dtype)
    b = _words(base, dtype)
    u = np.zeros(len(b), b.dtype)
    of_element = np.repeat(parts.classes, BLOCK)[: len(b)]
    order = _in_groups(b, of_element, groups.of_key, dtype)
    u[order] = _values(parts.tokens, parts.raw, groups.counts, dtype)
    drifted = _drifted(b, of_element, dtype)
    u[drifted] = parts.low.astype(b.dtype) | (
        parts.high.astype(b.dtype) << b.dtype.type(8) if dtype.itemsize > 1 else 0
    )
    _words(into, dtype)[...] = _sum(b, u, dtype)


def split(data: Bytes, dtype: DType) -> list[Bytes]:
    """The byte planes of one frame's elements, lowest first; the sign of floats rotated to the low end."""
    words = _words(data, dtype)
    if dtype.rotate:
        words = words << words.dtype.type(1) | words >> words.dtype.type(8 * dtype.itemsize - 1)
    return [(words >> words.dtype.type(8 * k)).astype(np.uint8) for k in range(dtype.itemsize)]


def join(planes: Sequence[Bytes], dtype: DType, into: Bytes) -> None:
    """Write the elements to `into` again."""
    words: _Words = planes[-1].astype(_WORDS[dtype.itemsize])
    for plane in reversed(planes[:-1]):
        words = words << words.dtype.type(8) | plane
    if dtype.rotate:
        words = words >> words.dtype.type(1) | words << words.dtype.type(8 * dtype.itemsize - 1)
    _words(into, dtype)[...] = words


def narrow(wide: Bytes, dtype: DType) -> Bytes | None:
    """float32 rounded to F16 or BF16, to nearest and ties to even; None if there is a NaN."""
    bits = wide.view("<u4")
    rest = bits & np.uint32(0x7FFFFFFF)
    if bool((rest > 0x7F800000).any()):
        return None
    if dtype.word == "BF16":
        halves = (bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16
    else:
        halves = (bits >> 16 & 0x8000) | _half(rest.astype(np.int64))
    return halves.astype("<u2").view(np.uint8)


def same(a: Bytes, b: Bytes) -> bool:
    """Whether two runs of equally many bytes are the same."""
    return np.array_equal(a, b)


def _half(rest: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bits of float16 without the sign, from bits of float32 without the sign."""
    exponent = (rest >> 23) - 112
    # Below the smallest normal number one bit is lost for each step of the exponent.
    shift = np.clip(14 - exponent, 13, 25)
    mantissa = np.where(exponent > 0, rest - (112 << 23), (rest & 0x7FFFFF) | 0x800000)
    rounded = (mantissa + (np.int64(1) << (shift - 1)) - 1 + (mantissa >> shift & 1)) >> shift
    return np.where(exponent >= 31, 0x7C00, np.where(exponent < -10, 0, rounded))


# --- differences ----------------------------------------------------------------------------------------


def _words(data: Bytes, dtype: DType) -> _Words:
    words: _Words = data.view(_WORDS[dtype.itemsize])
    return words


def _ordered(v: _Words, dtype: DType) -> _Words:
    """Integers in the order of the floats: negatives with all bits turned, others with the first one set."""
    if not dtype.is_float:
        return v
    top = v.dtype.type(1 << (8 * dtype.itemsize - 1))
    return np.where(v & top, ~v, v | top)


def _is_negative(v: _Words, dtype: DType) -> npt.NDArray[np.bool_]:
    if not dtype.is_float:
        return np.zeros(len(v), np.bool_)
    negative: npt.NDArray[np.bool_] = (v >> v.dtype.type(8 * dtype.itemsize - 1)).astype(np.bool_)
    return negative


def _difference(x: _Words, b: _Words, dtype: DType) -> _Words:
    """Modulo 2^bits; its sign turned where the base is negative, so that to shrink is always to fall."""
    d = _ordered(x, dtype) - _ordered(b, dtype)
    return np.where(_is_negative(b, dtype), _minus(d), d)


def _minus(v: _Words) -> _Words:
    negated: _Words = ~v + v.dtype.type(1)
    return negated


def _zigzag(d: _Words, dtype: DType) -> _Words:
    turned: _Words = (d << d.dtype.type(1)) ^ _minus(d >> d.dtype.type(8 * dtype.itemsize - 1))
    return turned


def _sum(b: _Words, u: _Words, dtype: DType) -> _Words:
    one = u.dtype.type(1)
    d = (u >> one) ^ _minus(u & one)
    o = _ordered(b, dtype) + np.where(_is_negative(b, dtype), _minus(d), d)
    if not dtype.is_float:
        return o
    top = o.dtype.type(1 << (8 * dtype.itemsize - 1))
    return np.where(o & top, o ^ top, ~o)


# --- blocks, keys and groups ------------------------------------------------------------------------------


def _classes(u: _Words, dtype: DType) -> Bytes:
    count = -(-len(u) // BLOCK)
    padded = np.zeros(count * BLOCK, u.dtype)
    padded[: len(u)] = u
    rows = padded.reshape(count, BLOCK)
    sizes = np.full(count, BLOCK)
    sizes[-1] = len(u) - BLOCK * (count - 1)
    odd = (rows & rows.dtype.type(1)).sum(1, dtype=np.int64)
    most = np.maximum(odd, (rows != 0).sum(1) - odd)
    drifted = (most * _MOSTLY[1] >= sizes * _MOSTLY[0]) & (np.bitwise_or.reduce(rows, axis=1) < (1 << 16))
    classes = np.where(drifted & _may_drift(dtype), DRIFTED, SCATTERED)
    return np.where((rows != 0).any(1), classes, SAME).astype(np.uint8)


def _may_drift(dtype: DType) -> bool:
    return dtype.mantissa > _DRIFT_BITS


def _require_classes(classes: Bytes, dtype: DType) -> None:
    if bool((classes > (DRIFTED if _may_drift(dtype) else SCATTERED)).any()):
        raise DamagedFault("a block is of an unknown class")


def _keys(b: _Words, dtype: DType) -> npt.NDArray[np.int64]:
    """The exponents of floats."""
    if not dtype.is_float:
        return np.zeros(len(b), np.int64)
    bits = 8 * dtype.itemsize - 1 - dtype.mantissa
    keys: _Words = (b >> b.dtype.type(dtype.mantissa)) & b.dtype.type((1 << bits) - 1)
    return keys.astype(np.int64)


def _groups(keys: npt.NDArray[np.int64], dtype: DType) -> tuple[list[int], Bytes]:
    """How many elements each group has, and the group of each key."""
    bits = 8 * dtype.itemsize - 1 - dtype.mantissa if dtype.is_float else 0
    count_of = np.bincount(keys, minlength=1 << bits)
    group_of = np.zeros(1 << bits, np.uint8)
    groups: list[int] = []
    current = 0
    for key in np.flatnonzero(count_of).tolist():
        group_of[key] = len(groups)
        current += int(count_of[key])
        if current >= GROUP_MIN:
            groups.append(current)
            current = 0
    if current and groups:
        group_of[group_of == len(groups)] = len(groups) - 1
        groups[-1] += current
    elif current:
        groups.append(current)
    return groups, group_of


def _in_groups(b: _Words, of_element: Bytes, of_key: Bytes, dtype: DType) -> npt.NDArray[np.intp]:
    """Where the scattered elements lie, group after group."""
    at = np.flatnonzero(of_element == SCATTERED)
    # Stable: within a group the order is that of the elements.
    return at[np.argsort(of_key[_keys(b[at], dtype)], kind="stable")]


def _drifted(b: _Words, of_element: Bytes, dtype: DType) -> npt.NDArray[np.intp]:
    """Where the drifted elements lie, in the order of the first bits of their base's mantissa."""
    at = np.flatnonzero(of_element == DRIFTED)
    if not len(at):
        return at
    keys = (b[at] >> b.dtype.type(dtype.mantissa - _DRIFT_BITS)) & b.dtype.type((1 << _DRIFT_BITS) - 1)
    return at[np.argsort(keys.astype(np.uint8), kind="stable")]


# --- tokens and raw bits ------------------------------------------------------------------------------------


def _log2(u: _Words) -> npt.NDArray[np.int64]:
    """The place of the highest bit; of zero, minus one."""
    if u.dtype.itemsize < 8:
        return np.frexp(u.astype(np.float64))[1].astype(np.int64) - 1
    # A float holds 53 bits: 64 are looked at in halves.
    high = (u >> u.dtype.type(32)).astype(np.uint32)
    low = (u & u.dtype.type(0xFFFFFFFF)).astype(np.uint32)
    return np.where(high > 0, _log2(high) + 32, _log2(low))


def _tokens(u: _Words, dtype: DType) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """A token for each value, and how many of its low bits the token leaves out."""
    if dtype.itemsize == 1:
        return u.astype(np.uint8), np.zeros(len(u), np.int64)
    sub = _SUB[dtype.itemsize]
    exponent = _log2(u)
    widths = np.maximum(np.where(u < _SMALL, 0, exponent - sub), 0)
    top = (u >> widths.astype(u.dtype)).astype(np.int64) & ((1 << sub) - 1)
    tokens = np.where(u < _SMALL, u.astype(np.int64), _SMALL + ((exponent - 4) << sub) + top)
    return tokens.astype(np.uint8), widths


def _values(tokens: Bytes, raw: Bytes, groups: Sequence[int], dtype: DType) -> _Words:
    kind = _WORDS[dtype.itemsize]
    if dtype.itemsize == 1:
        if len(raw):
            raise DamagedFault("raw bits follow tokens that leave none out")
        whole: _Words = tokens.astype(kind)
        return whole
    sub = _SUB[dtype.itemsize]
    over = np.maximum(tokens.astype(np.int64) - _SMALL, 0)
    exponent = (over >> sub) + 4
    if bool((exponent >= 8 * dtype.itemsize).any()):
        raise DamagedFault("a token is none of this width")
    widths = np.where(tokens < _SMALL, 0, exponent - sub)
    low = _unpack(raw, widths, groups)
    width = widths.astype(np.uint64)
    high = np.uint64(1) << exponent.astype(np.uint64) | (over & ((1 << sub) - 1)).astype(np.uint64) << width
    values: _Words = np.where(tokens < _SMALL, tokens.astype(np.uint64), high | low).astype(kind)
    return values


def _places(widths: npt.NDArray[np.int64], groups: Sequence[int]) -> tuple[npt.NDArray[np.int64], int]:
    """The bit at which each value begins, groups beginning at whole bytes; and how many bytes there are."""
    ends = np.cumsum(widths)
    places = ends - widths
    shift = total = at = 0
    for count in groups:
        if not count:
            continue
        begin = int(places[at])
        shift = total * 8 - begin
        places[at : at + count] += shift
        total += -(-(int(ends[at + count - 1]) - begin) // 8)
        at += count
    return places, total


def _halved(
    widths: npt.NDArray[np.int64], places: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Widths and places of the low 32 bits and of the rest of each value, one after the other."""
    low = np.minimum(widths, 32)
    return np.stack([low, widths - low], 1).ravel(), np.stack([places, places + low], 1).ravel()


def _pack(u: _Words, widths: npt.NDArray[np.int64], groups: Sequence[int]) -> Bytes:
    """The low `widths` bits of each value, one after another from the lowest bit up."""
    places, total = _places(widths, groups)
    parts = u.astype(np.uint64)
    if u.dtype.itemsize == 8:
        parts = np.stack([parts & np.uint64(0xFFFFFFFF), parts >> np.uint64(32)], 1).ravel()
        widths, places = _halved(widths, places)
    parts &= (np.uint64(1) << widths.astype(np.uint64)) - np.uint64(1)
    parts <<= (places & 31).astype(np.uint64)
    words = np.zeros(total // 4 + 3, np.uint64)
    if len(parts):
        # Values lie one after another: those of one word are neighbours. No two share a bit.
        word = places >> 5
        first = np.flatnonzero(np.diff(word, prepend=-1))
        words[word[first]] |= np.bitwise_or.reduceat(parts & np.uint64(0xFFFFFFFF), first)
        words[word[first] + 1] |= np.bitwise_or.reduceat(parts >> np.uint64(32), first)
    return words.astype("<u4").view(np.uint8)[:total].copy()


def _unpack(raw: Bytes, widths: npt.NDArray[np.int64], groups: Sequence[int]) -> npt.NDArray[np.uint64]:
    places, total = _places(widths, groups)
    if total != len(raw):
        raise DamagedFault("the raw bits are not as many as the tokens say")
    padded = np.zeros(total + 16, np.uint8)
    padded[:total] = raw
    # Eight bytes from every byte on: an unaligned window, read as it lies.
    windows = np.ndarray((total + 8,), "<u8", padded.data, strides=(1,))
    several = bool((widths > 32).any())
    if several:
        widths, places = _halved(widths, places)
    found: npt.NDArray[np.uint64] = windows[places >> 3].astype(np.uint64) >> (places & 7).astype(np.uint64)
    found &= (np.uint64(1) << widths.astype(np.uint64)) - np.uint64(1)
    return found[::2] | found[1::2] << np.uint64(32) if several else found
