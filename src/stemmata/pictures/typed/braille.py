"""Braille: a sheet of dots, two by four in a character. Owns lines on it and what colour a character has."""

from __future__ import annotations

from stemmata.pictures.typed import ink

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


class Sheet:
    """`width` by `height` characters; dots are counted from the upper left."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._bits = [[0] * width for _ in range(height)]
        self._tones = [[""] * width for _ in range(height)]
        self._marks: dict[tuple[int, int], tuple[str, str]] = {}

    def dot(self, x: int, y: int, tone: str = "") -> None:
        """Set one dot; beyond the sheet nothing happens."""
        column, row = x // 2, y // 4
        if 0 <= column < self.width and 0 <= row < self.height and x >= 0 and y >= 0:
            self._bits[row][column] |= _DOTS[y % 4][x % 2]
            self._tones[row][column] = tone

    def line(self, x0: int, y0: int, x1: int, y1: int, tone: str = "") -> None:
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for k in range(steps + 1):
            self.dot(round(x0 + (x1 - x0) * k / steps), round(y0 + (y1 - y0) * k / steps), tone)

    def mark(self, x: int, y: int, character: str, tone: str = "") -> None:
        """A character where that dot is, over the dots."""
        column, row = x // 2, y // 4
        if 0 <= column < self.width and 0 <= row < self.height:
            self._marks[row, column] = (character, tone)

    def rows(self, colours: int) -> list[str]:
        found = []
        for row in range(self.height):
            line = ""
            for column in range(self.width):
                character, tone = self._marks.get((row, column), ("", ""))
                if not character:
                    bits = self._bits[row][column]
                    character, tone = (chr(0x2800 + bits), self._tones[row][column]) if bits else (" ", "")
                line += ink.inked(character, colours, fore=tone) if tone else character
            found.append(line)
        return found
