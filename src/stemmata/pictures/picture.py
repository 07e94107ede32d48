"""Picture: what every picture can do. Owns the roads to a page, a figure, a terminal, a table.

A picture holds plain numbers and names. How they look is drawn elsewhere, by whichever module a road needs:
`drawn` (matplotlib), `web` (a page with ECharts), `typed` (a terminal).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemmata.deferred import deferred
from stemmata.errors import MissingExtra

if TYPE_CHECKING:
    from stemmata.pictures import figures, page, snippets
else:
    figures = deferred("stemmata.pictures.figures")
    page = deferred("stemmata.pictures.page")
    snippets = deferred("stemmata.pictures.snippets")

TRUE_COLOUR = 1 << 24


@dataclass(frozen=True)
class Table:
    """Facts beside a picture. Cells are shown as they are; those of `numeric` columns to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = field(default_factory=frozenset)
    more: str = ""
    """What is not listed."""
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """Cells that are good, bad, muted, added or removed."""
    colours: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """Cells with the colour of a line, `run0`."""
    folded: bool = False
    """Shown when it is asked for."""
    code: bool = False
    """Lines of a text: every blank counts."""


class Picture(ABC):
    """Numbers that can be looked at."""

    kind: str
    """heatmap, curves, spectra, parallel or lineage."""
    heading: str
    """What such a picture is called."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it shows."""

    @property
    @abstractmethod
    def finding(self) -> str:
        """What there is to see in it, in one sentence."""

    @property
    def notes(self) -> Sequence[str]:
        """What is not in it, and why."""
        return ()

    @property
    def is_empty(self) -> bool:
        """There is nothing to draw."""
        return False

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """One for each thing that is drawn."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """The facts that stand beside it on a page."""

    @abstractmethod
    def text(self, width: int = 100, *, colours: int = 0) -> str:
        """It in characters, of at most `width` columns.

        `colours` that the terminal has: 0 (none are used), 256 or 1 << 24.
        """

    def figure(self, *, dark: bool = False) -> Any:
        """A matplotlib Figure, of no window and no pyplot. Raises MissingExtra without matplotlib."""
        return figures.figure(self, dark=dark)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A page of its own, written to `path` if there is one: it needs no network and no other file.

        Raises PictureNotWritten.
        """
        return page.of(self).to_html(path)

    def to_dict(self) -> dict[str, Any]:
        """What is drawn, as JSON can hold it but for NaN and infinities."""
        return {
            "kind": self.kind,
            "title": self.title,
            "finding": self.finding,
            "notes": list(self.notes),
            "rows": self.rows(),
        }

    def to_pandas(self) -> Any:
        """A DataFrame, a row for each thing that is drawn. Raises MissingExtra without pandas."""
        return frame(self.rows(), f"{type(self).__name__}.to_pandas()")

    def _repr_html_(self) -> str:
        return snippets.of(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.title}: {self.finding}>"


def frame(rows: Sequence[Mapping[str, Any]], asked: str) -> Any:
    """A DataFrame. Raises MissingExtra without pandas."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise MissingExtra(feature=asked, package="pandas", extra="pandas") from error
    return pandas.DataFrame(list(rows))


def written(path: str | os.PathLike[str], content: str) -> Path:
    """Write a page. Raises PictureNotWritten."""
    from stemmata.pictures.problems import PictureNotWritten

    target = Path(path)
    try:
        target.write_text(content, encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PictureNotWritten(path=str(target), reason=reason) from error
    return target
