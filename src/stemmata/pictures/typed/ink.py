"""Ink: characters with colours. Owns how a terminal is told of them, and what stands for them where there
are none."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from stemmata.pictures import words

SHADES = "░▒▓█"
_CUBE = (0, 95, 135, 175, 215, 255)


def inked(text: str, colours: int, *, fore: str = "", back: str = "", bold: bool = False) -> str:
    """`text` in colours given as `#rrggbb`, as near as the terminal has them; with 0 as it is."""
    if not colours or not text:
        return text
    codes = [*(["1"] if bold else [])]
    codes += [_code("38", fore, colours)] if fore else []
    codes += [_code("48", back, colours)] if back else []
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if codes else text


def dim(text: str, colours: int) -> str:
    return f"\x1b[2m{text}\x1b[0m" if colours and text else text


def bold(text: str, colours: int) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colours and text else text


def _code(what: str, colour: str, colours: int) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    if colours > 256:
        return f"{what};2;{red};{green};{blue}"
    return f"{what};5;{_of_256(red, green, blue)}"


def _of_256(red: int, green: int, blue: int) -> int:
    """The nearest of xterm's cube of colours and its greys."""
    cube = [min(range(6), key=lambda k: abs(_CUBE[k] - channel)) for channel in (red, green, blue)]
    grey = min(23, max(0, round(((red + green + blue) / 3 - 8) / 10)))
    of_cube = sum((_CUBE[k] - c) ** 2 for k, c in zip(cube, (red, green, blue), strict=True))
    of_grey = sum((8 + 10 * grey - c) ** 2 for c in (red, green, blue))
    if of_grey < of_cube:
        return 232 + grey
    return 16 + 36 * cube[0] + 6 * cube[1] + cube[2]


def shade(share: float) -> str:
    """One of four, from light to full."""
    return SHADES[min(3, int(share * 4))]


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """`text` cut or filled up to `width` columns, nothing in it that moves a cursor."""
    shown = words.printable(text)
    if columns(shown) > width:
        while shown and columns(shown) > max(0, width - 1):
            shown = shown[:-1]
        shown += "…" if width > 0 else ""
    blanks = " " * (width - columns(shown))
    return blanks + shown if right else shown + blanks


def flowing(parts: Iterable[tuple[str, int]], width: int, gap: str = "   ") -> list[str]:
    """Parts, each with its columns, beside each other on as many lines as they need."""
    lines: list[str] = []
    line, used = "", 0
    for part, wide in parts:
        if line and used + len(gap) + wide > width:
            lines.append(line)
            line, used = "", 0
        line += (gap if line else "") + part
        used += (len(gap) if used else 0) + wide
    return [*lines, line] if line else lines


def wrapped(text: str, width: int) -> list[str]:
    """A sentence on lines of at most `width` columns."""
    import textwrap

    return textwrap.wrap(words.printable(text), max(20, width)) or [""]
