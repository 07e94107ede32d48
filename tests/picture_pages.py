"""A page as a parser sees it, and one on which everything that people name is named as badly as can be."""

from __future__ import annotations

from html.parser import HTMLParser

from picture_makers import HOSTILE, sweep
from stemmata.pictures.curves import Curves
from stemmata.pictures.heatmap import HeatMap
from stemmata.pictures.lineage import Kin, LineageGraph, Link
from stemmata.pictures.matrix import Entry
from stemmata.pictures.page import Fact, Page, Section
from stemmata.pictures.parallel import Parallel
from stemmata.pictures.picture import Table
from stemmata.pictures.seen import Seen
from stemmata.pictures.spectra import Spectra, Values

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Read(HTMLParser):
    """Tags with their attributes, what scripts hold, and whether all is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self.lines: list[str] = []
        """Words of the body, piece by piece."""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.words += data
            if data.strip() and "style" not in self._open:
                self.lines.append(data.strip())


def hostile_page() -> Page:
    """Everything that a person may name is named as badly as can be."""
    bad = HOSTILE
    odd = ("{a}{b|c}", "@ink", "$x$ \\frac{1}{0}", "a\x1b[2Jb\u202ec", "<!--", "]]>", "`${1}`")
    seen = [
        Seen(
            v.id,
            bad + v.name,
            bad + str(v.run),
            v.run_id,
            v.epoch,
            v.step,
            v.at,
            {bad: v.metrics["loss"], **dict.fromkeys(odd, v.metrics["eval_f1"])},
            {bad: v.config["lora.r"], "word": f"{bad}{v.run}"[:60], "{c}": v.config["learning_rate"]},
            (bad, "{c}"),
            odd,
        )
        for v in sweep(3, 4)
    ]
    entries = [Entry(f"h.{k}.{o}", "moved", 1.0, 30.0, note=bad) for k in range(2) for o in (bad, *odd)]
    spectra = Spectra.make(
        bad, [bad, bad], [Values(f"h.0.{bad}", (2.0, 1.0), 2, 1.5, side) for side in (0, 1)]
    )
    kin = [Kin("a", bad, bad, "absent", odd, True, True, ((bad, bad),)), Kin("b", bad, bad)]
    pictures = [
        Curves.make(bad, seen),
        Parallel.make(bad, seen),
        HeatMap.make(bad, [*entries, Entry(bad, "strange", note=bad)]),
        spectra,
        LineageGraph.make(bad, kin, [Link("a", "b", "fork")]),
    ]
    assert not any(picture.is_empty for picture in pictures)
    tables = (Table(bad, (bad, "b"), ((bad, bad),), more=bad), Table(bad, ("a",), ((bad,),), folded=True))
    sections = [*(Section.of(picture, bad) for picture in pictures), Section(bad, bad, None, tables, (bad,))]
    return Page(bad, bad, bad, (Fact(bad, bad),), tuple(sections))
