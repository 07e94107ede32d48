"""The list of versions that log, search and models print: one line a version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from stemmata.catalog.lines import DELETABLE, is_mark
from stemmata.cli import ranking, text
from stemmata.cli.styled import Text
from stemmata.cli.tables import Column, table
from stemmata.version import Version

_NARROW = 100
ALIAS, TAG, NAME, ID, DIM, BEST = "bold green", "cyan", "bold", "yellow", "dim", "bold green"
WRONG = "bold red"


def badges(version: Version) -> Text:
    """Aliases and tags, as marks that stand out without colour too."""
    found = Text()
    for style, left, right, names in ((ALIAS, "[", "]", version.aliases), (TAG, "#", "", version.tags)):
        for name in names:
            found.append(" " if found else "")
            found.append(f"{left}{text.plain(name)}{right}", style)
    return found


def name_of(version: Version, *, model: bool) -> Text:
    """The version's names, the model's before them if `model`, its badges after them, and a quiet word
    where the policy of its run no longer needs it."""
    found = Text()
    if model:
        found.append(f"{text.plain(version.model)}@", DIM)
    found.append(text.plain(version.name), NAME)
    for other in version.names:
        if other != version.name:
            found.append(f" ={text.plain(other)}", DIM)
    marks = badges(version)
    if marks:
        found.append(" ")
        found.append_text(marks)
    found.append_text(alarm(version))
    if is_mark(version.labels.get(DELETABLE)):
        found.append(f" {DELETABLE}", DIM)
    return found


def alarm(version: Version) -> Text:
    """What is wrong with the weights themselves, in a word that stands out; empty where nothing is."""
    learnt = version.record.statistics
    found = Text()
    if learnt is not None and learnt.nonfinite:
        found.append(" !not finite", WRONG)
    if learnt is not None and learnt.grown:
        found.append(" !exploded", WRONG)
    return found


def versions_table(
    versions: Sequence[Version],
    width: int,
    *,
    metrics: Sequence[str] = (),
    now: datetime | None = None,
) -> Text:
    """Versions in the order given. Metric columns come by interest and leave as the width needs."""
    now = now or datetime.now(UTC)
    several = len({v.model for v in versions}) > 1
    digits = 8 if width < _NARROW else 12
    columns = [Column("id"), Column("version", shrink=max(16, width * 2 // 5))]
    columns += [Column("epoch", 3, right=True), Column("step", 5, right=True), Column("age", 1, right=True)]
    for version in versions:
        columns[0].add(version.id.hex[:digits], ID)
        columns[1].add(name_of(version, model=several))
        columns[2].add(text.epoch(version.epoch))
        columns[3].add("" if version.step is None else str(version.step))
        columns[4].add(text.age(version.created_at, now), DIM)
    columns += _metric_columns(versions, metrics)
    tail = [Column("size", 4, right=True), Column("message", 2, shrink=16)]
    for version in versions:
        tail[0].add(text.size(version.size), DIM)
        tail[1].add(text.plain(version.message.strip().split("\n")[0]))
    return table([*columns, *tail], width)


def _metric_columns(versions: Sequence[Version], asked: Sequence[str]) -> list[Column]:
    if not versions:
        return []
    # Of several models, the one with most lines decides what comes first.
    models = [v.model for v in versions]
    primary = ranking.Primary(
        versions[0].source.catalog.connection, max(dict.fromkeys(models), key=models.count)
    )
    rows = [v.metrics for v in versions]
    found = []
    for place, name in enumerate(ranking.columns(rows, asked, primary.metric)[: max(3, len(asked))]):
        # The first metric is what people come for; the others give way before the message does.
        column = Column(text.plain(name), rank=1 if place == 0 or asked else 3 + 3 * place, right=True)
        values = [row.get(name) for row in rows]
        best = ranking.best_of(values, primary.direction(name))
        for value, shown in zip(values, text.numbers(values), strict=True):
            column.add(shown, BEST if best == value is not None else "")
        found.append(column)
    return found
