"""Texts: what differs between two of them, line by line. Owns how much work a comparison may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

MAX_BYTES = 256 << 10
MAX_LINES = 1000
"""Lines between the first and the last difference: the comparison may take the square of them."""
_AROUND = 2


@dataclass(frozen=True, slots=True)
class TextChange:
    """A text that differs. `lines` as `diff -u` prints them, without its first two; none where `note` says
    why there are none."""

    name: str
    lines: tuple[str, ...] = ()
    note: str = ""

    @property
    def added(self) -> int:
        return sum(line.startswith("+") for line in self.lines)

    @property
    def removed(self) -> int:
        return sum(line.startswith("-") for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "lines": list(self.lines), "note": self.note or None}


def compare_texts(name: str, a: bytes, b: bytes) -> TextChange:
    """How the text `a` became `b`; of what is none, or is long, only that it differs."""
    if max(len(a), len(b)) > MAX_BYTES:
        return TextChange(name, note=f"{len(a):,} → {len(b):,} bytes: too long to be compared by lines")
    try:
        before, after = a.decode(), b.decode()
    except UnicodeDecodeError:
        return TextChange(name, note="not text: compared as bytes")
    if "\0" in before or "\0" in after:
        return TextChange(name, note="not text: compared as bytes")
    return compare_strings(name, before, after)


def compare_strings(name: str, a: str, b: str) -> TextChange:
    """As `compare_texts`, of what was read already."""
    left, right = _lines(a), _lines(b)
    if left == right:
        return TextChange(name, note="only the ends of lines differ")
    first, last = _alike(left, right)
    if max(len(left), len(right)) - first - last > MAX_LINES:
        return TextChange(name, note=f"{len(left):,} → {len(right):,} lines: too many to be compared")
    return TextChange(name, tuple(_unified(left, right, first, last)))


def _lines(text: str) -> list[str]:
    """Without their ends, the last one's too."""
    text = text.replace("\r\n", "\n").removesuffix("\n")
    return text.split("\n") if text else []


def _alike(a: list[str], b: list[str]) -> tuple[int, int]:
    """How many lines are the same at the begin, and at the end."""
    most = min(len(a), len(b))
    first = 0
    while first < most and a[first] == b[first]:
        first += 1
    last = 0
    while last < most - first and a[-1 - last] == b[-1 - last]:
        last += 1
    return first, last


def _unified(a: list[str], b: list[str], first: int, last: int) -> Iterator[str]:
    skipped = max(0, first - _AROUND)
    kept = max(0, last - _AROUND)
    left, right = a[skipped : len(a) - kept], b[skipped : len(b) - kept]
    for group in SequenceMatcher(None, left, right).get_grouped_opcodes(_AROUND):
        _, from_a, _, from_b, _ = group[0]
        _, _, to_a, _, to_b = group[-1]
        ranges = (_range(skipped + from_a, to_a - from_a), _range(skipped + from_b, to_b - from_b))
        yield f"@@ -{ranges[0]} +{ranges[1]} @@"
        for what, i, j, k, m in group:
            if what == "equal":
                yield from (f" {line}" for line in left[i:j])
            else:
                yield from (f"-{line}" for line in left[i:j])
                yield from (f"+{line}" for line in right[k:m])


def _range(begin: int, length: int) -> str:
    return f"{begin + 1 if length else begin},{length}" if length != 1 else f"{begin + 1}"
