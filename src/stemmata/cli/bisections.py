"""What a bisection found, for people: the version, what changed with it, the line as a strip. Words only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stemmata.cli import text
from stemmata.cli.listing import BEST, DIM, ID, NAME, WRONG
from stemmata.cli.ranking import Primary
from stemmata.cli.styled import Text
from stemmata.cli.tables import Column, pairs, table
from stemmata.metricnames import by_interest

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.histories.bisection import Bisection, Point
    from stemmata.histories.verdicts import Kept
    from stemmata.repository import Repository

_MARKS = {"good": ("●", BEST), "bad": ("✗", WRONG), "skip": ("~", "yellow"), None: ("·", DIM)}
_WIDEST = 96
_METRICS = 3
"""Of those that changed, how many are shown."""
_SUSPECTS = 20


def tell(output: Output, found: Bisection, repository: Repository) -> None:
    """The whole answer on stdout; what it cost on stderr."""
    if (first := found.first_bad) is not None:
        head = _name(first)
        output.show(head.append("  is the first bad version", WRONG))
        rows = [("after", _name(found.last_good)), *_about(first), *_metrics(found, repository)]
        output.show(pairs(rows, output.width))
    else:
        many = text.count(len(found.suspects), "version")
        words = f"The first bad one is among {many}: those before the last were skipped."
        output.show(Text(words, WRONG))
        output.show(_suspects(found.suspects, output.width))
    output.show("", *strip(found, min(output.width, _WIDEST)))
    output.note(f"\n{_cost(found)}")
    if found.turns is not None and found.turns > 1:
        output.note(f"the verdict changes {found.turns} times along this line; this is one of the places")
    if first is not None:
        output.note(f"look: stemmata diff {_ref(found.last_good)} {_ref(first)}")


def strip(found: Bisection, width: int) -> list[Text]:
    """The line, oldest first, a mark for each version, or for several where there are many."""
    room = max(width - 4, 20)
    points = found.line
    each = -(-len(points) // room)
    parts = [points[start : start + each] for start in range(0, len(points), each)]
    line = Text("  ")
    for part in parts:
        mark, style = _MARKS[_loudest(part)]
        line.append(mark, style)
    words = "  ".join(f"{mark} {word}" for mark, word in _legend(points))
    if each > 1:
        words += f"  each mark is {text.count(each, 'version')}"
    return [line, Text(f"  {words}", DIM)]


def _loudest(points: Sequence[Point]) -> str | None:
    verdicts = {point.verdict for point in points}
    return next((word for word in ("bad", "good", "skip") if word in verdicts), None)


def _legend(points: Sequence[Point]) -> list[tuple[str, str]]:
    there = {point.verdict for point in points}
    words = {"good": "good", "bad": "bad", "skip": "skipped", None: "not judged"}
    return [(mark, words[key]) for key, (mark, _) in _MARKS.items() if key in there]


def _name(point: Point) -> Text:
    line = Text().append(text.plain(f"{point.model}@"), DIM)
    return line.append(text.plain(point.name), NAME).append(f"  {point.id.short}", ID)


def _ref(point: Point) -> str:
    return text.plain(f"{point.model}@{point.name}")


def _about(point: Point) -> list[tuple[str, Text]]:
    now = datetime.now(UTC)
    saved = Text(text.local(point.created_at)).append(f"  {text.ago(point.created_at, now)}", DIM)
    found = [("saved", saved)]
    if point.reason and point.reason != "as was said":
        found.append(("verdict", Text(text.plain(point.reason))))
    return found


def _metrics(found: Bisection, repository: Repository) -> list[tuple[str, Text]]:
    """What became of the metrics that are known of both: those people care for first."""
    first, before = found.first_bad, found.last_good
    if first is None:
        return []
    primary = Primary(repository.session.catalog.connection, first.model)
    # What is on both sides; NaN is the same as NaN here.
    common = [key for key in first.metrics if key in before.metrics]
    changed = [key for key in common if repr(before.metrics[key]) != repr(first.metrics[key])]
    rows = []
    for key in by_interest(changed, primary.metric)[:_METRICS]:
        a, b = text.apart(before.metrics[key], first.metrics[key])
        way = primary.direction(key)
        better = way is not None and (first.metrics[key] < before.metrics[key]) == (way == "min")
        style = "" if way is None else "green" if better else "red"
        rows.append((text.plain(key), Text(a).append(" → ", DIM).append(b, style)))
    return rows


def _suspects(suspects: Sequence[Point], width: int) -> Text:
    columns = [Column("version"), Column("id", 1), Column("verdict", 1), Column("why", 2, shrink=12)]
    for point in suspects[:_SUSPECTS]:
        columns[0].add(_ref(point), NAME)
        columns[1].add(point.id.short, ID)
        columns[2].add({"skip": "skipped", "bad": "bad"}.get(point.verdict or "", ""))
        columns[3].add(text.plain(point.reason), DIM)
    if len(suspects) > _SUSPECTS:
        columns[0].add(f"and {len(suspects) - _SUSPECTS} more", DIM)
        for column in columns[1:]:
            column.add("")
    return table(columns, width, indent=2)


def _cost(found: Bisection) -> str:
    among = text.count(len(found.line) - 1, "version")
    parts = [f"{text.count(found.evaluations, 'evaluation')} for {among}"]
    told = sum(not p.ran and not p.before and p.verdict != "skip" for p in found.judged)
    parts += [f"{told} by stored metrics"] if told else []
    parts += [f"{found.skipped} skipped"] if found.skipped else []
    if found.reused:
        parts.append(f"{text.count(found.reused, 'verdict')} from before; --restart judges anew")
    return ", ".join(parts)


def judged_table(repository: Repository, kept: Kept, width: int) -> Text:
    """Every verdict of a bisection that is kept, in the order in which they were found."""
    from stemmata.catalog import queries
    from stemmata.ids import VersionId

    connection = repository.session.catalog.connection
    columns = [Column("version"), Column("id", 2), Column("verdict"), Column("took", 3, right=True)]
    columns += [Column("at", 4), Column("why", 1, shrink=12)]
    for each in kept.judged:
        row = queries.version_by_id(connection, VersionId.parse(each.version))
        columns[0].add(text.plain(row.name) if row is not None else "not here", NAME)
        columns[1].add(each.version[:12], ID)
        columns[2].add({"skip": "skipped"}.get(each.verdict, each.verdict), _MARKS[each.verdict][1])
        columns[3].add(text.duration(each.seconds) if each.ran else "", DIM)
        columns[4].add(text.local(each.at), DIM)
        columns[5].add(text.plain(each.reason), DIM)
    return table(columns, width)
