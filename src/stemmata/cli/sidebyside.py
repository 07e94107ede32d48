"""Several versions side by side, for people: a column a version, or a line where that fits better. Owns how
such a table is turned, cut short and folded until it fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemmata.cli import text
from stemmata.cli.changes import counted_setting
from stemmata.cli.listing import BEST, DIM, ID, NAME
from stemmata.cli.styled import Text, cell_len
from stemmata.cli.tables import Column, table
from stemmata.compare.many import letter
from stemmata.compare.records import by_data, equal

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.compare.many import Comparison, MetricRow, Part, Row
    from stemmata.records import Value

_LEAST = 9
"""Columns that a value keeps when a table is made narrower."""
_KEY = 30
_INDENT = 2
_FEW = 6
_GAP = 2
_ABSENT = "–"
_BYTES = frozenset({"bytes"})
_ARROWS = {"min": "↓", "max": "↑"}


@dataclass(frozen=True, slots=True)
class _Line:
    """One key, and what each version has of it."""

    key: str
    cells: list[Text]


def tell(output: Output, found: Comparison, *, full: bool = False) -> None:
    """Print it: the versions by letters, then what varies, part by part; `full`: every package too."""
    letters = [letter(place) for place in range(len(found))]
    wide = max(map(len, letters))
    for mark, label, version in zip(letters, found.labels, found.ids, strict=True):
        line = Text().append(f"{mark:<{wide}}  ", DIM).append(text.plain(label), NAME)
        output.show(line.append(f"  {version.short}", ID))
    equal_parts: list[str] = []
    at = f" at {found.point}" if found.point is not None else ""
    metrics = [row for row in found.metrics if not row.same]
    same = len(found.metrics) - len(metrics)
    if metrics:
        _section(output, f"metrics{at}", same, [_metric(row) for row in metrics], letters, right=True)
        _explain(output, metrics)
    elif same:
        equal_parts.append("metrics")
    for mark, reading in zip(letters, found.readings or (), strict=False):
        from stemmata.cli.differences import reading_line

        output.show(reading_line(mark, reading))
    for part, each in found.tables.items():
        if each:
            folded = [] if full or part != "environment" else _folded(each.rows)
            lines = [_settings(row, part) for row in each.rows if row not in folded]
            _section(output, _title(part), each.same, lines, letters, right=part == "weights")
            if folded:
                output.show(_others([text.plain(row.key.partition(":")[2]) for row in folded]))
        elif each.same:
            equal_parts.append(_title(part))
    for kind, why in found.unknown.items():
        output.show(Text(f"  {text.plain(kind)}: {text.plain(why)}", "yellow"))
    if equal_parts:
        output.show("", Text(f"equal: {', '.join(equal_parts)}", DIM))


def _folded(rows: Sequence[Row]) -> list[Row]:
    """Of an environment what tells little by itself, if that is more than one."""
    from stemmata.compare.environment import Item, is_folded

    found = [row for row in rows if is_folded(Item(*row.key.split(":", 1)))]
    return found if len(found) > 1 else []


def _others(names: Sequence[str]) -> Text:
    listed = ", ".join(names[:_FEW]) + (", …" if len(names) > _FEW else "")
    return Text(f"  and {len(names):,} others: {listed}; --full shows all", DIM)


def _title(part: Part) -> str:
    return "LoRA" if part == "lora" else part


def _explain(output: Output, metrics: Sequence[MetricRow]) -> None:
    if any(row.best for row in metrics):
        output.show(Text("  * best; ↓ less is better, ↑ more is", DIM))
    for words in by_data((row.key, row.differing_data) for row in metrics):
        output.show(Text(f"  {text.plain(words)}", "yellow"))


def _metric(row: MetricRow) -> _Line:
    best = row.best
    values = text.numbers(row.values)
    cells = [
        Text(f"*{value}", BEST) if place in best else Text(value or _ABSENT, "" if value else DIM)
        for place, value in enumerate(values)
    ]
    arrow = _ARROWS.get(row.direction or "", "")
    return _Line(text.plain(row.key) + (f" {arrow}" if arrow else ""), cells)


def _settings(row: Row, part: Part) -> _Line:
    key = row.key.partition(":")[2] if part == "environment" else row.key
    values = [_shown(value, part, row.key) for value in row.values]
    cells = []
    for place, words in enumerate(values):
        if place in row.absent:
            cells.append(Text(_ABSENT, DIM))
        else:
            odd = not equal(row.values[place], row.values[0])
            cells.append(Text(words, "yellow" if odd else ""))
    if part == "lora":
        from stemmata.compare.lora import FACTS

        key = FACTS.get(key, key.replace("_", " "))
    return _Line(text.plain(key), cells)


def _shown(value: Value, part: Part, key: str) -> str:
    if part == "environment":
        return counted_setting(value)
    if part == "weights" and key in _BYTES and isinstance(value, int):
        return text.size(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if (isinstance(value, str) and value != value.strip()) or value == "":
        return f'"{text.plain(value)}"'
    return text.setting(value)


# --- layout ---------------------------------------------------------------------------------------


def _section(
    output: Output, title: str, same: int, lines: Sequence[_Line], letters: Sequence[str], *, right: bool
) -> None:
    head = Text().append(title, "bold").append(f"  {same:,} equal" if same else "", DIM)
    output.show("", head)
    first = True
    for block in laid_out(lines, letters, output.width, right=right):
        output.show(*([] if first else [""]), block)
        first = False


def laid_out(lines: Sequence[_Line], letters: Sequence[str], width: int, *, right: bool) -> Iterator[Text]:
    """A column for each version; where these do not fit a line for each, if that does; else columns in blocks
    below each other. Long values are cut where they do not differ."""
    upright = _Grid([line.key for line in lines], letters, [line.cells for line in lines])
    room = width - _INDENT
    if upright.least() <= room:
        yield upright.draw(width, right=right)
        return
    turned = upright.turned()
    if turned.least() <= room and len(letters) > len(lines):
        yield turned.draw(width, right=right)
        return
    for block in upright.blocks(room):
        yield block.draw(width, right=right)


@dataclass(frozen=True, slots=True)
class _Grid:
    heads: Sequence[str]
    """Of the lines."""
    titles: Sequence[str]
    """Of the columns."""
    cells: Sequence[Sequence[Text]]

    def turned(self) -> _Grid:
        return _Grid(self.titles, self.heads, list(zip(*self.cells, strict=True)))

    def _natural(self, column: int) -> int:
        return max(cell_len(self.titles[column]), *(line[column].cell_len for line in self.cells))

    def _head(self) -> int:
        return max(map(cell_len, self.heads))

    def least(self) -> int:
        """Columns of the terminal that it takes, made as narrow as may be."""
        return min(self._head(), _KEY) + sum(_GAP + self._narrow(c) for c in range(len(self.titles)))

    def _narrow(self, column: int) -> int:
        return max(cell_len(self.titles[column]), min(self._natural(column), _LEAST))

    def blocks(self, room: int) -> Iterator[_Grid]:
        """As few grids as fit, each with some of the columns."""
        begin = 0
        while begin < len(self.titles):
            end, taken = begin, min(self._head(), _KEY)
            while end < len(self.titles) and (end == begin or taken + _GAP + self._narrow(end) <= room):
                taken += _GAP + self._narrow(end)
                end += 1
            yield _Grid(self.heads, self.titles[begin:end], [line[begin:end] for line in self.cells])
            begin = end

    def draw(self, width: int, *, right: bool) -> Text:
        room = self._rooms(width - _INDENT)
        first = Column("", shrink=min(self._head(), _KEY))
        for head in self.heads:
            first.add(head, DIM)
        columns = [Column(title, right=right, shrink=_LEAST) for title in self.titles]
        for line in self.cells:
            for column, cell in zip(columns, _apart(line, room), strict=True):
                column.add(cell)
        return table([first, *columns], width, indent=_INDENT)

    def _rooms(self, room: int) -> list[int]:
        """Columns of the terminal that each column may take: what it wants, as long as there is some."""
        head = min(self._head(), max(_KEY, room // 3))
        wanted = [self._natural(c) for c in range(len(self.titles))]
        spare = room - head - _GAP * len(wanted)
        most = max(wanted, default=0)
        while most > _LEAST and sum(min(w, most) for w in wanted) > spare:
            most -= 1
        return [max(min(w, most), 1) for w in wanted]


def _apart(cells: Sequence[Text], rooms: Sequence[int]) -> list[Text]:
    """Values that fit: what is too long loses its end, or where it would look alike then, its begin."""
    words = [cell.plain for cell in cells]
    long = {w: w[: room - 1] for w, room in zip(words, rooms, strict=True) if len(w) > room}
    begin = _alike(list(long)) if len(set(long.values())) < len(long) else 0
    found = []
    for cell, whole, room in zip(cells, words, rooms, strict=True):
        if cell.cell_len <= room:
            found.append(cell)
            continue
        kept = min(begin, max(0, len(whole) - room + 1))
        shown = ("…" if kept else "") + whole[kept:]
        found.append(Text(shown, cell.style or _style(cell)).truncate(room))
    return found


def _alike(words: Sequence[str]) -> int:
    """How many characters all begin with."""
    return next((n for n, chars in enumerate(zip(*words, strict=False)) if len(set(chars)) > 1), 0)


def _style(cell: Text) -> str:
    return next((style for _, style in cell.parts), "")
