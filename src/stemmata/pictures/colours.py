"""Colours of pictures: a ramp for amounts, hues for runs, and the tones of paper by day and by night.

The ramp is a straight line in lightness through OKLCH (Ottosson 2020, "A perceptual color space for image
processing"): equal steps look equal, greys and eyes that miss a hue keep its order. By day more is darker, by
night more is lighter. The hues are those of Okabe & Ito 2008, "Color Universal Design", made to stand out on
either paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

_Turn = tuple[tuple[float, float, float], ...]

# Lightness, chroma, hue in degrees; in between all three go straight.
_DAY: _Turn = ((0.965, 0.035, 100), (0.84, 0.13, 75), (0.70, 0.17, 45), (0.54, 0.18, 15), (0.27, 0.13, -50))
_NIGHT: _Turn = ((0.27, 0.06, -75), (0.41, 0.14, -40), (0.56, 0.18, 5), (0.74, 0.16, 50), (0.945, 0.09, 98))


@dataclass(frozen=True, slots=True)
class Scheme:
    """The tones of one paper, as `#rrggbb`."""

    paper: str
    card: str
    ink: str
    muted: str
    """Words beside; at least 4.5:1 on paper and card."""
    line: str
    grid: str
    still: str
    """Cells of weights that did not move."""
    strange: str
    """Cells that cannot be compared."""
    added: str
    removed: str
    good: str
    bad: str
    faint: str
    """Lines of runs that are there for the whole, not for themselves."""
    runs: tuple[str, ...]

    def words(self) -> dict[str, str]:
        """By name, for whoever fills them in."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "runs"}
        return plain | {f"run{number}": colour for number, colour in enumerate(self.runs)}


DAY = Scheme(
    paper="#f6f7f9",
    card="#ffffff",
    ink="#1c2026",
    muted="#5b6470",
    line="#c9ced6",
    grid="#e6e9ee",
    still="#e9ecf0",
    strange="#b9c0ca",
    added="#0f7b5a",
    removed="#b3382c",
    good="#0f7b5a",
    bad="#b3382c",
    faint="#cdd2d9",
    runs=("#0072b2", "#d55e00", "#007f5f", "#b0508c", "#8a6d00", "#2b9fd8", "#7a5195", "#4d4d4d"),
)
NIGHT = Scheme(
    paper="#0f1216",
    card="#171b21",
    ink="#e8ebef",
    muted="#9aa4b1",
    line="#3b434e",
    grid="#272d36",
    still="#262c35",
    strange="#59626f",
    added="#45c99a",
    removed="#ff8a7a",
    good="#45c99a",
    bad="#ff8a7a",
    faint="#3f4752",
    runs=("#56b4e9", "#f08a3c", "#2fc79a", "#e08cc0", "#e5c73b", "#8fd0ff", "#b79ae0", "#c4c9d1"),
)
RUNS = len(DAY.runs)


def scheme(*, dark: bool) -> Scheme:
    return NIGHT if dark else DAY


def ramp(share: float, *, dark: bool = False) -> str:
    """The colour of an amount between 0 and 1, `#rrggbb`."""
    red, green, blue = rgb(share, dark=dark)
    return f"#{red:02x}{green:02x}{blue:02x}"


def on_ramp(share: float, *, dark: bool = False) -> str:
    """The tone for words upon it: the one of the two that is easier to read."""
    below = luminance(ramp(share, dark=dark))
    return "#ffffff" if (1.05 / (below + 0.05)) > ((below + 0.05) / 0.05) else "#000000"


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it, of `#rrggbb`."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@cache
def stops(count: int, *, dark: bool = False) -> tuple[str, ...]:
    """So many colours of the ramp, evenly."""
    return tuple(ramp(number / (count - 1), dark=dark) for number in range(count))


def rgb(share: float, *, dark: bool = False) -> tuple[int, int, int]:
    """As `ramp`, in 0 to 255."""
    path = _NIGHT if dark else _DAY
    at = min(1.0, max(0.0, share)) * (len(path) - 1)
    begin = min(int(at), len(path) - 2)
    along = at - begin
    first, second = path[begin], path[begin + 1]
    _, chroma, hue = (a + (b - a) * along for a, b in zip(first, second, strict=True))
    # The lightness is one straight line over all of the path.
    light = path[0][0] + (path[-1][0] - path[0][0]) * min(1.0, max(0.0, share))
    while (found := _srgb(light, chroma, hue)) is None:
        chroma *= 0.99  # beyond what a screen can show
    return found


def _srgb(light: float, chroma: float, hue: float) -> tuple[int, int, int] | None:
    """OKLCH as sRGB; None where a screen has no such colour."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    channels = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    if any(c < -1e-4 or c > 1.0001 for c in channels) and chroma > 1e-4:
        return None
    red, green, blue = (round(255 * _gamma(min(1.0, max(0.0, c)))) for c in channels)
    return red, green, blue


def _gamma(channel: float) -> float:
    return 12.92 * channel if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055
