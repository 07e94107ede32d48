"""Spectra in characters: a bar for each singular value of each kind of module, then the effective ranks."""

from __future__ import annotations

from stemmata.pictures import colours as tones
from stemmata.pictures import words
from stemmata.pictures.spectra import Spectra
from stemmata.pictures.typed import heatmap, ink

_STEPS = "▁▂▃▄▅▆▇█"
_NAME = 32


def lines(picture: Spectra, width: int, colours: int) -> str:
    found = [ink.bold(line, colours) for line in ink.wrapped(picture.finding, width)]
    if not picture.is_empty:
        found += ["", *_kinds(picture, width, colours)]
        if not picture.ranks.is_empty:
            found += ["", heatmap.lines(picture.ranks, width, colours)]
    for note in picture.notes:
        found += [ink.dim(line, colours) for line in ink.wrapped(note, width)]
    return "\n".join(found)


def _kinds(picture: Spectra, width: int, colours: int) -> list[str]:
    several = len(picture.sides) > 1
    names = [f"{g.kind} ({'ab'[g.side]})" if several else g.kind for g in picture.groups]
    margin = min(_NAME, max(map(ink.columns, names), default=0))
    room = max(8, width - margin - 24)
    found = [ink.dim("singular values, median over the layers, of the greatest", colours)]
    for name, group in zip(names, picture.groups, strict=True):
        values = group.median
        greatest = values[0] or 1.0
        bars = "".join(_STEPS[min(7, max(0, int(8 * v / greatest)))] for v in values[:room])
        tone = tones.NIGHT.runs[group.colour] if group.colour >= 0 else ""
        more = "…" if len(values) > room else ""
        told = ink.dim(f"σ₁ {words.number(values[0])}, rank {group.effective:.1f}", colours)
        found.append(f"{ink.fitted(name, margin)}  {ink.inked(bars, colours, fore=tone)}{more}  {told}")
    return found
