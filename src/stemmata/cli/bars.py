"""Bars of block characters: amounts side by side, an eighth of a character fine. Owns no numbers."""

from __future__ import annotations

from collections.abc import Sequence

from stemmata.cli.styled import Text

_EIGHTHS = " ▏▎▍▌▋▊▉"
FULL, REST = "█", "░"


def bar(part: float, whole: float, scale: float, width: int, style: str, rest_style: str = "dim") -> Text:
    """`part` of `whole`, `width` characters for `scale`: the part solid, the rest shaded."""
    found = Text(no_wrap=True)
    if scale <= 0:
        return found
    length = min(width, max(round(width * whole / scale), 1 if whole > 0 else 0))
    eighths = min(round(8 * width * part / scale), 8 * length)
    if part > 0 and not eighths:
        eighths = 1
    full, more = divmod(eighths, 8)
    found.append(FULL * full + (_EIGHTHS[more] if more else ""), style)
    found.append(REST * (length - full - bool(more)), rest_style)
    return found


def shares(amounts: Sequence[tuple[float, str, str]], width: int) -> Text:
    """One bar of `width` characters, divided as (amount, character, style) says; what is there is seen."""
    total = sum(amount for amount, _, _ in amounts)
    found = Text(no_wrap=True)
    if total <= 0:
        return found
    lengths = [max(1, int(width * amount / total)) if amount > 0 else 0 for amount, _, _ in amounts]
    # What rounding left over, or took too much, is the largest one's.
    largest = max(range(len(amounts)), key=lambda place: amounts[place][0])
    lengths[largest] += width - sum(lengths)
    for length, (_, character, style) in zip(lengths, amounts, strict=True):
        found.append(character * length, style)
    return found
