"""Styled: words with styles, how wide they are, and how a terminal is told of them. Owns no layout.

A style is words: attributes and a colour, `bold green`. rich does all this too, and more; importing that
much of it took as long as all that `stemmata log` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Self

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_ATTRIBUTES = ("bold", "dim")
_MOVES = {7: None, 8: None, 11: None, 12: None, 13: None}
"""Characters that move the cursor, or ring: they are of no use in a line."""
_ELLIPSIS = "…"
_NARROW = str.maketrans("", "", "…→←↑↓▲▼≠×−–—·°±≈é")
"""Takes away what is no ASCII, often used, and as wide as that: most lines need no table of widths."""


def cell_len(words: str) -> int:
    """Columns that `words` take on a terminal."""
    if words.isascii() or words.translate(_NARROW).isascii():
        return len(words)
    from rich import cells  # it knows which characters are wide

    return cells.cell_len(words)


def set_cell_size(words: str, total: int) -> str:
    """`words` cut, or filled up with blanks, to `total` columns."""
    if words.isascii() or words.translate(_NARROW).isascii():
        return words[:total].ljust(total)
    from rich import cells

    return cells.set_cell_size(words, total)


class Text:
    """Words, each with a style. `style` is that of all of them; `no_wrap`: its lines are laid out already."""

    __slots__ = ("_parts", "no_wrap", "style")

    def __init__(self, words: str = "", style: str = "", *, no_wrap: bool = False) -> None:
        self.style = style
        self.no_wrap = no_wrap
        self._parts: list[tuple[str, str]] = []
        self.append(words)

    @property
    def plain(self) -> str:
        return "".join([words for words, _ in self._parts])

    @property
    def cell_len(self) -> int:
        return cell_len(self.plain)

    @property
    def parts(self) -> Iterator[tuple[str, str]]:
        """Words and the whole of their style."""
        for words, style in self._parts:
            yield words, f"{self.style} {style}" if self.style and style else self.style or style

    def append(self, words: str, style: str = "") -> Self:
        if words:
            self._parts.append((words if words.isprintable() else words.translate(_MOVES), style))
        return self

    def append_text(self, other: Text) -> Self:
        self._parts += other.parts
        return self

    def truncate(self, width: int) -> Text:
        """At most `width` columns of it, an ellipsis the last one where some are left out."""
        if self.cell_len <= width:
            return self
        whole = self.plain
        kept = set_cell_size(whole, width - 1)
        # Of a wide character that does not fit, a blank is left.
        found = self[: len(kept) if whole.startswith(kept) else len(kept) - 1]
        return found.append(kept[len(found) :] + _ELLIPSIS, found._parts[-1][1] if found._parts else "")

    def split_lines(self) -> list[Text]:
        """Its lines, the empty ones too."""
        found, start = [], 0
        for line in self.plain.split("\n"):
            found.append(self[start : start + len(line)])
            start += len(line) + 1
        return found

    def __getitem__(self, where: slice) -> Text:
        """The characters `where`, in their styles."""
        start, stop, _ = where.indices(len(self))
        found, at = Text(style=self.style, no_wrap=self.no_wrap), 0
        for words, style in self._parts:
            piece = words[max(start - at, 0) : max(stop - at, 0)]
            at += len(words)
            found.append(piece, style)
        return found

    def __len__(self) -> int:
        return sum(len(words) for words, _ in self._parts)

    def __str__(self) -> str:
        return self.plain

    def __repr__(self) -> str:
        return f"<Text {self.plain!r}>"


def escaped(value: Text, *, colours: bool) -> str:
    """It as a terminal shows it; without `colours` bold and dim alone."""
    return "".join(
        [
            f"\x1b[{codes}m{words}\x1b[0m" if (codes := _codes(style, colours)) else words
            for words, style in value.parts
        ]
    )


@cache
def _codes(style: str, colours: bool) -> str:
    asked = style.split()
    found = [_CODES[word] for word in _ATTRIBUTES if word in asked]
    if colours:
        found += [_CODES[word] for word in asked if word not in _ATTRIBUTES][-1:]  # the last one counts
    return ";".join(found)


def fold(value: Text, room: int) -> list[Text]:
    """`value` in lines of at most `room` columns, cut at blanks where there are some."""
    if value.cell_len <= room and "\n" not in value.plain:
        return [value]
    lines = []
    for paragraph in value.split_lines():
        while paragraph.cell_len > room:
            whole = paragraph.plain
            head = set_cell_size(whole, room).rstrip()
            blank = len(head) if whole[len(head) : len(head) + 1] == " " else head.rfind(" ")
            cut = blank if blank > room // 2 else max(len(head), 1)
            lines.append(paragraph[:cut])
            paragraph = paragraph[cut:]
            paragraph = paragraph[len(paragraph) - len(paragraph.plain.lstrip(" ")) :]
        lines.append(paragraph)
    return lines
