"""Changes for people: `before → after`, keys that came and went, texts line by line. Owns how they look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stemmata.cli import text
from stemmata.cli.styled import Text, fold

if TYPE_CHECKING:
    from stemmata.compare.records import Changes
    from stemmata.compare.texts import TextChange
    from stemmata.records import Value

_STYLES = {"+": "green", "-": "red", "@": "cyan"}
_LONGEST = 400
"""Characters of a line of a text that are shown."""


def move(before: str, after: str) -> Text:
    """`before → after`, one under the other where they are long."""
    line = Text().append(before, "red")
    line.append("\n→ " if len(before) + len(after) > 60 else " → ", "dim")
    line.append(after, "green")
    return line


def counted_setting(value: Value) -> str:
    """A value on one line; a list as what it has how often: `8 × NVIDIA H100`."""
    if isinstance(value, list):
        from stemmata.compare.environment import counted

        return ", ".join(counted([text.setting(each) for each in value]))
    return text.setting(value)


def came(value: str) -> Text:
    return Text(f"+ {value}", "green")


def went(value: str) -> Text:
    return Text(f"- {value}", "red")


def changed_rows(changes: Changes) -> list[tuple[str, Text]]:
    """A row for each key that differs, by name."""
    rows = [(text.plain(c.key), move(text.setting(c.a), text.setting(c.b))) for c in changes.changed]
    rows += [(text.plain(k), went(text.setting(v))) for k, v in changes.removed.items()]
    rows += [(text.plain(k), came(text.setting(v))) for k, v in changes.added.items()]
    return sorted(rows, key=lambda row: row[0])


def counted(change: TextChange) -> Text:
    """`+3 −1 lines`, or why lines cannot be told."""
    if change.note:
        return Text(text.plain(change.note), "yellow")
    line = Text()
    line.append(f"+{change.added:,}" if change.added else "", "green")
    line.append(" " if change.added and change.removed else "")
    line.append(f"−{change.removed:,}" if change.removed else "", "red")
    return line.append(" line" if change.added + change.removed == 1 else " lines", "dim")


def unified(change: TextChange, width: int, *, limit: int | None) -> Iterator[Text]:
    """The lines of a text that differ, `limit` of them at most."""
    lines = change.lines if limit is None or len(change.lines) <= limit + 1 else change.lines[:limit]
    for line in lines:
        shown = text.plain(line.replace("\t", "    "))
        if limit is not None and len(shown) > _LONGEST:
            shown = shown[: _LONGEST - 1] + "…"
        for part in fold(Text(shown, _STYLES.get(line[:1], "dim")), max(width - 4, 16)):
            yield Text("    ", no_wrap=True).append_text(part)
    if len(lines) < len(change.lines):
        more = text.count(len(change.lines) - len(lines), "more line")
        yield Text(f"    … {more}; --full shows all", "dim")
