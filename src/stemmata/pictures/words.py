"""Words of pictures: amounts as people read them, and where the marks of an axis stand."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence


def share(value: float) -> str:
    """A ratio as a percentage of two digits: 0.0031 %, 1.2 %, 34 %; beyond that 12-fold."""
    if not math.isfinite(value):
        return "from zero"
    if value >= 9.995:
        return f"{value:.3g}-fold"
    if value >= 0.995:
        return f"{100 * value:.0f} %"
    percent = 100 * value
    if percent == 0:
        return "0 %"
    digits = max(0, 1 - math.floor(math.log10(percent) + 1e-9))
    return f"{percent:.{digits}f} %" if percent >= 0.0001 else f"{percent:.1e} %"


def number(value: float) -> str:
    """About four digits: 0.4123, 1.2e-05, 1234, NaN."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 1e6 or magnitude < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{_stripped(mantissa)}e{int(exponent)}"
    digits = max(0, 3 - math.floor(math.log10(magnitude)))
    return _stripped(f"{value:.{digits}f}")


def count(amount: int, one: str, many: str | None = None) -> str:
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def size(amount: int) -> str:
    """Bytes, in powers of 1000."""
    value, unit = float(amount), 0
    units = ("B", "kB", "MB", "GB", "TB")
    while value >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {units[unit]}" if unit == 0 or value >= 99.5 else f"{value:.3g} {units[unit]}"


def listed(words: Sequence[str], most: int = 3) -> str:
    """`a`, `a and b`, `a, b and 3 more`."""
    if len(words) > most:
        shown = list(words[: most - 1] if most > 1 else words[:1])
        return f"{', '.join(shown)} and {len(words) - len(shown)} more"
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def ranges(numbers: Sequence[int]) -> str:
    """0–3, 7, 9–11."""
    parts: list[tuple[int, int]] = []
    for each in sorted(set(numbers)):
        if parts and parts[-1][1] == each - 1:
            parts[-1] = (parts[-1][0], each)
        else:
            parts.append((each, each))
    return ", ".join(str(a) if a == b else f"{a}–{b}" if b > a + 1 else f"{a}, {b}" for a, b in parts)


def clipped(words: str, most: int) -> str:
    """At most so many characters, the middle left out: both ends tell names apart."""
    if len(words) <= most:
        return words
    tail = (most - 1) * 3 // 5
    return f"{words[: most - 1 - tail]}…{words[len(words) - tail :]}"


def printable(words: str) -> str:
    """Without what moves a cursor or hides: for places that show text as it is."""
    if words.isprintable():
        return words
    return "".join(c if c.isprintable() else "�" if c not in "\n\t" else " " for c in words)


# --- axes -----------------------------------------------------------------------------------------


_LEAST = sys.float_info.min
_LARGEST = 1e200


def drawable(value: float) -> float:
    """As an axis can have it: what is too large for one counts as infinite, what is too small as zero."""
    if abs(value) >= _LARGEST:
        return math.inf if value > 0 else -math.inf
    return 0.0 if abs(value) <= 1 / _LARGEST else float(value)


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Marks between two positive numbers: powers of ten, with 2 and 5 between where few fit; round ones
    where not two of those do."""
    low, high = max(low, _LEAST), max(high, _LEAST)  # the edge of an axis may underflow to zero
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [s * 10.0**e for e in range(first, last + 1) for s in steps]
        found = [t for t in found if low * 0.999 <= t <= high * 1.001]
        if len(found) <= most:
            return found if len(found) > 1 else ticks(low, high, 4)
    return found[:: math.ceil(len(found) / most)]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round marks between two numbers."""
    if _are_one(low, high):
        return [low]
    step = _step(low, high, most)
    first = math.ceil(low / step - 1e-9)
    return [_at(n, step) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def around(low: float, high: float, most: int = 6) -> list[float]:
    """Round marks of which the first is at or below `low` and the last at or above `high`."""
    if _are_one(low, high):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    step = _step(low, high, most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [_at(n, step) for n in range(first, last + 1)]


def _are_one(low: float, high: float) -> bool:
    """Too near to each other for marks between them that differ."""
    return not high - low > 1e-12 * max(abs(low), abs(high))


def _step(low: float, high: float, most: int) -> float:
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)


def _at(number: int, step: float) -> float:
    """The mark of that number, without what multiplying leaves in its last digits."""
    return round(number * step, 2 - math.floor(math.log10(step)))


def log_around(low: float, high: float) -> list[float]:
    """As `around`, of 1, 2 and 5 times powers of ten; between them only as many as have room."""
    every = [
        s * 10.0**e for e in range(-320, 308) for s in (1, 2, 5) if low / 5.1 <= s * 10.0**e <= high * 5.1
    ]
    first = max(t for t in every if t <= low * 1.001)
    last = min(t for t in every if t >= high * 0.999)
    return [first, *(t for t in log_ticks(first, last) if first < t < last), last]


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels, at least `gap` from each other where there is room, near where they belong."""
    order = sorted(range(len(wanted)), key=lambda k: wanted[k])
    if not order:
        return []
    gap = min(gap, (high - low) / max(1, len(order) - 1)) if len(order) > 1 else gap
    found = [min(max(wanted[k], low), high) for k in order]
    for _ in range(2):
        for at in range(1, len(found)):
            found[at] = max(found[at], found[at - 1] + gap)
        if found[-1] > high:
            found[-1] = high
        for at in range(len(found) - 2, -1, -1):
            found[at] = min(found[at], found[at + 1] - gap)
        if found[0] < low:
            found[0] = low
    placed = [0.0] * len(wanted)
    for k, value in zip(order, found, strict=True):
        placed[k] = value
    return placed


def _stripped(shown: str) -> str:
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
