"""Words and numbers for people: sizes, ages, metrics, safe text. Owns no terminal."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_AGES = (
    (365 * 86400, "year", "y"),
    (30 * 86400, "month", "mo"),
    (7 * 86400, "week", "w"),
    (86400, "day", "d"),
    (3600, "hour", "h"),
    (60, "minute", "m"),
)


def plain(text: str, *, lines: bool = False) -> str:
    """`text` without what steers a terminal: control characters and direction overrides.

    A repository may come from anywhere, and a message is shown as it is. `lines` keeps newlines.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = []
    for char in text:
        if char == "\n" and lines:
            kept.append(char)
        elif char in "\n\t\r":
            kept.append(" ")
        elif unicodedata.category(char) in ("Cc", "Cs") or unicodedata.bidirectional(char) in _STEERING:
            kept.append("\N{REPLACEMENT CHARACTER}")
        else:
            kept.append(char)
    return "".join(kept)


def escaped(text: str) -> str:
    """As `plain`, but what steers a terminal, or is not to be seen, is written `\\u202e`: for a value."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() and plain(c) == c else ascii(c)[1:-1] for c in text)


_STEERING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def size(count: int) -> str:
    """Bytes in decimal units: 999 B, 1.0 kB, 12.3 MB."""
    amount = float(count)
    for unit in _UNITS:
        if abs(amount) < 999.95 or unit == _UNITS[-1]:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("the last unit always fits")


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 file`, `2,000 files`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def number(value: object) -> str:
    """A metric in at most about eight characters: 0.4123, 1.2e-05, 1234, nan."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(str(value))
    if isinstance(value, int) and abs(value) < 10**9:
        return str(value)
    if not math.isfinite(value):
        return str(float(value))
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 1e7 or magnitude < 0.01:
        return f"{value:.3g}"
    if magnitude >= 1000:
        return _stripped(f"{value:.1f}") if magnitude < 1e5 else f"{value:.0f}"
    decimals = 4 if magnitude < 10 else 5 - len(str(int(magnitude)))
    return _stripped(f"{value:.{decimals}f}")


def apart(first: float | None, second: float | None) -> tuple[str, str]:
    """Two metrics as `number` shows them, with more digits where they would look alike but are not."""
    shown = [number(v) if v is not None else "–" for v in (first, second)]
    if shown[0] == shown[1] and first != second and first is not None and second is not None:
        for digits in range(5, 18):
            shown = [f"{v:#.{digits}g}" for v in (first, second)]
            if shown[0] != shown[1]:
                break
    return shown[0], shown[1]


def _stripped(shown: str) -> str:
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def numbers(values: Sequence[float | None]) -> list[str]:
    """A column of metrics: as `number`, with the same decimals where that lines them up."""
    shown = ["" if v is None else number(v) for v in values]
    if any("e" in s for s in shown):
        return shown
    decimals = max((len(s.partition(".")[2]) for s in shown), default=0)
    return [
        f"{v:.{decimals}f}" if s and v is not None and math.isfinite(v) and abs(v) < 1000 else s
        for v, s in zip(values, shown, strict=True)
    ]


def share_moved(relative: float | None) -> str:
    """How far weights moved against their norm before: 0.12 %, 3.2-fold; None or infinite: from zero."""
    if relative is None or not math.isfinite(relative):
        return "from zero"
    if relative < 0.995:
        return f"{100 * relative:.2g} %"
    return f"{100 * relative:.0f} %" if relative < 10 else f"{relative:.3g}-fold"


def precise(value: float) -> str:
    """A metric on its own, with six digits."""
    return number(value) if not math.isfinite(value) else f"{value:.6g}"


def setting(value: object) -> str:
    """A config value on one line; floats in full, since 2e-05 and 2.1e-05 are two settings."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(setting(v) for v in value) + "]"
    return plain(str(value))


def moment(stamp: str | None) -> datetime | None:
    """A stored RFC 3339 time; None for what is none."""
    if not stamp:
        return None
    try:
        found = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _age(stamp: str | None, now: datetime) -> tuple[int, int]:
    then = moment(stamp)
    if then is None:
        return -1, -1
    seconds = (now - then).total_seconds()
    for index, (length, _, _) in enumerate(_AGES):
        if seconds >= length:
            return int(seconds // length), index
    return 0, len(_AGES)


def age(stamp: str | None, now: datetime) -> str:
    """How long ago, in a table: 3m, 2h, 5d, 3w, 4mo, 2y; `now` below a minute."""
    amount, index = _age(stamp, now)
    if index < 0:
        return "?"
    return f"{amount}{_AGES[index][2]}" if amount else "now"


def ago(stamp: str | None, now: datetime) -> str:
    """How long ago, in a sentence: `3 weeks ago`."""
    amount, index = _age(stamp, now)
    if index < 0:
        return "at an unknown time"
    return f"{count(amount, _AGES[index][1])} ago" if amount else "just now"


def local(stamp: str | None) -> str:
    """A stored time on the reader's own clock, to the minute."""
    then = moment(stamp)
    return then.astimezone().strftime("%Y-%m-%d %H:%M") if then else "?"


def utc(stamp: datetime | str) -> str:
    """A moment as everyone reads it alike: `2026-03-01 22:59:59 UTC`."""
    then = moment(stamp) if isinstance(stamp, str) else stamp
    return then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if then else "?"


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def epoch(value: float | None) -> str:
    """3, 0.5, 2.67; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else str(value)


def unnumbered(name: str) -> str:
    """What names of one thing in several layers have in common."""
    return re.sub(r"\d+", "*", name)


def fold(names: Sequence[str]) -> str:
    """Names that differ only in numbers as one: `layers.{0-3,7}.q_proj.weight`."""
    parts = [re.split(r"(\d+)", name) for name in names]
    folded = []
    for place, options in enumerate(zip(*parts, strict=True)):
        distinct = sorted({int(o) for o in options}) if place % 2 else []
        folded.append("{" + _ranges(distinct) + "}" if len(distinct) > 1 else options[0])
    return "".join(folded)


def _ranges(numbers: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
