"""Pictures on the command line: drawn in the terminal, or written as a page. Owns how many colours it has."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TextIO

from stemmata.cli.options import a_path, outside
from stemmata.cli.output import UNLIMITED, Output, styles_of
from stemmata.cli.styled import Text

if TYPE_CHECKING:
    from stemmata.pictures.picture import Picture

_PIPE = 120
"""Columns of a picture where there is no terminal."""


class Pageable(Protocol):
    """What can be written as a page."""

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str: ...


def tell(output: Output, found: Pageable, picture: Callable[[], Picture] | None, html: str | None) -> None:
    """Draw `picture` if there is one, write a page of `found` if a file is named; --json: what is drawn."""
    drawn = picture() if picture is not None else None
    if html is not None:
        found.to_html(outside(a_path(html, "--html"), "--html"))
    if output.json:
        document = drawn.to_dict() if drawn is not None else {}
        output.document({**document, "html": html})
        return
    if drawn is not None:
        width = _PIPE if output.width >= UNLIMITED else output.width
        output.show(Text(drawn.text(width, colours=colours_of(sys.stdout)), no_wrap=True))
    if html is not None:
        output.note(f"written to {html}; it opens in any browser, without a network")


def colours_of(stream: TextIO) -> int:
    """How many colours what reads `stream` is known to have: 0, 256 or 1 << 24."""
    if not styles_of(stream)[1]:
        return 0
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return 1 << 24
    term = os.environ.get("TERM", "")
    return 256 if "256" in term or "direct" in term or os.environ.get("FORCE_COLOR") in ("2", "3") else 0
