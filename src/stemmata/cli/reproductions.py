"""Verdicts on a version made again, as people see them. Owns their colours; the words are the verdict's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stemmata.cli import text
from stemmata.cli.styled import Text
from stemmata.cli.tables import pairs

if TYPE_CHECKING:
    from stemmata.reproducing import Verdict
    from stemmata.version import Version

_STYLES = {"good": "green", "bad": "red", "warn": "yellow", "dim": "dim", "": ""}
_OF_KINDS = {"diverged": "red", "undecided": "yellow", "not-run": "yellow"}


def verdict_lines(found: Verdict, width: int) -> list[Text]:
    """The verdict, then what there is to say of it."""
    head, *rest = found.lines()
    lines = [Text(text.plain(head.text), f"bold {_STYLES[head.tone]}")]
    rows = [(line.title, Text(text.plain(line.text), _STYLES[line.tone])) for line in rest]
    return lines + ([pairs(rows, width)] if rows else [])


def reproduced_rows(version: Version) -> list[tuple[str, Text]]:
    """The newest verdict that was kept with a version, in one line; none where there is none."""
    found = version.reproductions()
    if not found:
        return []
    newest = found[-1]
    line = Text(f"{text.local(newest.at)}: ")
    line.append(text.plain(str(newest)), _OF_KINDS.get(newest.verdict, "green"))
    if len(found) > 1:
        line.append(f"  {len(found):,} times in all", "dim")
    return [("reproduced", line)]
