"""Sheet: a figure with a title, what there is to see, and axes below. Owns sizes in inches and its tones."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from stemmata.pictures import colours, words

SMALL, NORMAL, LARGE = 8.0, 9.0, 12.0
DPI = 150
_LINE = 0.19
"""Inches that a line of the finding takes."""


class Sheet:
    """An area for axes of `wide` x `high` inches, with margins around it and words above."""

    def __init__(
        self,
        title: str,
        finding: str,
        wide: float,
        high: float,
        *,
        left: float = 0.7,
        right: float = 0.3,
        bottom: float = 0.6,
        top: float = 0.2,
        notes: Sequence[str] = (),
        dark: bool = False,
    ) -> None:
        self.tones = colours.scheme(dark=dark)
        self.dark = dark
        self.width = left + wide + right
        letters = int((self.width - 0.4) / 0.072)
        told = textwrap.wrap(literal(finding), letters) or [""]
        below = [line for note in notes for line in textwrap.wrap(literal(note), int(letters * 1.12))]
        head = 0.5 + _LINE * len(told) + top
        foot = bottom + 0.17 * len(below)
        self.height = head + high + foot
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor=self.tones.card)
        FigureCanvasAgg(self.figure)
        self._left, self._foot, self._high, self._wide = left, foot, high, wide
        self.figure.text(
            0.2 / self.width,
            1 - 0.32 / self.height,
            words.clipped(literal(title), int((self.width - 0.4) / 0.105)),
            fontsize=LARGE,
            fontweight="bold",
            color=self.tones.ink,
            parse_math=False,
        )
        for number, line in enumerate(told):
            y = 1 - (0.56 + _LINE * number) / self.height
            self._words(0.2, y, line, NORMAL)
        for number, line in enumerate(reversed(below)):
            self._words(0.2, (0.12 + 0.17 * number) / self.height, line, SMALL)

    def _words(self, inches: float, y: float, line: str, size: float) -> None:
        self.figure.text(
            inches / self.width, y, line, fontsize=size, color=self.tones.muted, parse_math=False
        )

    def axes(
        self, x: float = 0.0, y: float = 0.0, wide: float | None = None, high: float | None = None
    ) -> Axes:
        """Axes in the area, from its lower left corner on, in inches; all of it by default."""
        found: Axes = self.figure.add_axes(
            (
                (self._left + x) / self.width,
                (self._foot + y) / self.height,
                (self._wide if wide is None else wide) / self.width,
                (self._high if high is None else high) / self.height,
            )
        )
        found.set_facecolor(self.tones.card)
        for side in found.spines.values():
            side.set_visible(False)
        found.tick_params(length=0, colors=self.tones.muted, labelsize=SMALL)
        return found

    def ramp(self) -> LinearSegmentedColormap:
        stops = [colours.ramp(k / 64, dark=self.dark) for k in range(65)]
        return LinearSegmentedColormap.from_list("stemmata", stops)

    def run(self, number: int) -> str:
        """The colour of a run; faint beyond those that have one."""
        return self.tones.runs[number] if 0 <= number < len(self.tones.runs) else self.tones.faint


def literal(text: str) -> str:
    """Names as they are: nothing that does not print, or that the font has no glyph for."""
    return "".join(c if ord(c) < 0x2E80 else "▯" for c in words.printable(text))
