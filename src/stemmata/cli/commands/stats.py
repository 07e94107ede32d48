"""`stemmata stats`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Repo, open_repo, output_for
from stemmata.cli.registry import command_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemmata.cli.styled import Text
    from stemmata.usage import Usage

app = command_app()
_MOST = 10
"""Lines of a table; --json has all."""
_BAR = 36


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata stats",
        "stemmata stats sentiment",
        json="model, versions, restorable, files, distinct, stored, beside, saved_by_dedup, "
        "saved_by_deltas, saved_by_casts, saved_by_compression, codecs (list of codec, raw, stored), models "
        "and runs (lists of model, run, versions, files, needed, own), largest (list of id, model, name, "
        "files, own), growth (list of until, versions, files, stored), packs, unneeded, places {packs, log, "
        "bundles, checkpoints, catalog, checkouts}, unread. All sizes are bytes.",
    ),
)
def stats(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this model.")] = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Show how much space versions take, what was saved, and where.

    "as saved" is what the versions' files would take as plain copies, "needs" what a model or run takes in
    the packs without all others, "its own" what nothing else holds. Nothing is decoded; the first time
    the heads of all objects are read, afterwards what was found is kept in the catalog.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        with output.progress("looking", counted=True) as bar:
            found = repository.stats(model, progress=bar.to if bar is not None else None)
        if output.json:
            output.document(found.to_dict())
            return
        if not found.versions:
            output.note("no versions yet; make one with: stemmata save FOLDER MODEL")
            return
        output.show(*_lines(found, min(output.width, 100)))
        if found.unread:
            output.note(f"not counted, for they cannot be read: {', '.join(found.unread[:_MOST])}")
            output.note("stemmata check says what is damaged")


def _lines(found: Usage, width: int) -> Iterator[Text]:
    yield from _totals(found, width)
    yield from _growth(found, width)
    yield from _parts(found, width)
    yield from _largest(found, width)
    yield from _codecs(found, width)
    yield from _places(found)


def _title(words: str, about: str = "") -> Text:
    from stemmata.cli.styled import Text

    line = Text(no_wrap=True)
    line.append("\n" + words, "bold")
    return line.append(f"  {about}" if about else "", "dim")


def _totals(found: Usage, width: int) -> Iterator[Text]:
    """The files as one bar: what is stored, and what each way of saving took off."""
    from stemmata.cli.bars import FULL, shares
    from stemmata.cli.styled import Text

    line = Text(no_wrap=True)
    line.append(text.size(found.stored), "bold green").append(" stored for ")
    line.append(text.size(found.files), "bold")
    line.append(f" in {text.count(found.versions, 'version')}")
    if found.stored and found.files > found.stored:
        line.append(f", {found.files / found.stored:.1f} times less", "green")
    yield line
    amounts = [
        (found.stored - found.beside, "stored", "green", FULL),
        (found.saved_by_dedup, "saved by dedup", "cyan", "▓"),
        (found.saved_by_deltas, "by deltas", "blue", "▒"),
        (found.saved_by_casts, "by casts", "magenta", "▒"),
        (found.saved_by_compression, "by compression", "yellow", "░"),
    ]
    shown = [each for each in amounts if each[0] > 0]
    yield shares([(amount, mark, style) for amount, _, style, mark in shown], width)
    # Each with its mark, so that the bar is read without colours too.
    legend: list[Text] = []
    for amount, words, style, mark in shown:
        part = Text(no_wrap=True)
        part.append(f"{mark} ", style).append(f"{words} ").append(text.size(amount), "bold")
        legend.append(part)
    yield from _flowing(legend, width)
    if found.restorable:
        yield Text(f"{text.count(found.restorable, 'version')} of them deleted, and restorable", "dim")


def _flowing(parts: list[Text], width: int) -> Iterator[Text]:
    """Parts beside each other, on as many lines as they need."""
    from stemmata.cli.styled import Text

    line = Text(no_wrap=True)
    for part in parts:
        if line and line.cell_len + 3 + part.cell_len > width:
            yield line
            line = Text(no_wrap=True)
        if line:
            line.append("   ")
        line.append_text(part)
    yield line


def _growth(found: Usage, width: int) -> Iterator[Text]:
    from stemmata.cli.bars import FULL, REST, bar
    from stemmata.cli.styled import Text
    from stemmata.cli.tables import Column, table

    if len(found.growth) < 2:
        return
    yield _title("growth", f"{FULL} stored  {REST} as saved")
    most = max(span.files for span in found.growth)
    columns = [
        Column("until"),
        Column("versions", 3, right=True),
        Column(""),
        Column("stored", right=True),
        Column("as saved", 1, right=True),
    ]
    for span in found.growth:
        columns[0].add(span.until, "dim")
        columns[1].add(f"{span.versions:,}")
        columns[2].add(bar(span.stored, span.files, most, min(_BAR, width - 42), "green"))
        columns[3].add(text.size(span.stored), "bold")
        columns[4].add(text.size(span.files), "dim")
    yield table(columns, width)
    yield Text()


def _parts(found: Usage, width: int) -> Iterator[Text]:
    from stemmata.cli.tables import Column, table

    several = len(found.models) > 1
    for title, parts in (("models", found.models if several else ()), ("runs", found.runs)):
        if not parts:
            continue
        yield _title(title, "by what they hold alone")
        columns = [Column(title[:-1], shrink=16), Column("versions", 3, right=True)]
        columns += [
            Column("as saved", 2, right=True),
            Column("needs", 1, right=True),
            Column("its own", right=True),
        ]
        for part in parts[:_MOST]:
            run = part.run or "(no run)"
            name = part.model if title == "models" else f"{part.model}@{run}" if several else run
            columns[0].add(text.plain(name), "bold")
            columns[1].add(f"{part.versions:,}")
            columns[2].add(text.size(part.files), "dim")
            columns[3].add(text.size(part.needed))
            columns[4].add(text.size(part.own), "bold green")
        yield table(columns, width)
        yield from _left_out(len(parts), title[:-1])


def _largest(found: Usage, width: int) -> Iterator[Text]:
    from stemmata.cli.tables import Column, table

    shown = [version for version in found.largest if version.own]
    if not shown:
        return
    yield _title("versions", "with most bytes that no other holds")
    columns = [Column("version", shrink=16), Column("id", 2), Column("as saved", 1, right=True)]
    columns.append(Column("its own", right=True))
    for version in shown:
        columns[0].add(text.plain(f"{version.model}@{version.name}"), "bold")
        columns[1].add(version.id[:12], "yellow")
        columns[2].add(text.size(version.files), "dim")
        columns[3].add(text.size(version.own), "bold green")
    yield table(columns, width)


_CODECS = {
    "raw": "as it is",
    "zstd": "general compression",
    "planes": "bytes by significance",
    "delta": "difference from another",
    "cast": "rounding of another",
}


def _codecs(found: Usage, width: int) -> Iterator[Text]:
    """What each way of coding was given, and what it made of it; what is there twice counts once."""
    from stemmata.cli.tables import Column, table

    yield _title("codecs", "each content once")
    columns = [Column("codec"), Column("", 3), Column("given", right=True), Column("stored", right=True)]
    columns.append(Column("share", 1, right=True))
    for kept in sorted(found.codecs, key=lambda kept: -kept.raw):
        columns[0].add(text.plain(kept.codec), "bold")
        columns[1].add(_CODECS.get(kept.codec, ""), "dim")
        columns[2].add(text.size(kept.raw))
        columns[3].add(text.size(kept.stored), "bold green")
        columns[4].add(f"{kept.stored / kept.raw:.1%}" if kept.raw else "", "dim")
    yield table(columns, width)


def _places(found: Usage) -> Iterator[Text]:
    from stemmata.cli.styled import Text

    places = found.places
    yield _title("where")
    lines = [
        (places.packs, f"in {text.count(found.packs, 'pack')}", ""),
        (places.log + places.bundles, "log and bundles", ""),
        *([(places.checkpoints, "checkpoints", "made of the log")] if places.checkpoints else ()),
        (places.catalog, "catalog", "a cache"),
        (places.checkouts, "cached checkouts", "a cache"),
    ]
    for amount, words, about in lines:
        line = Text(f"{text.size(amount):>10}  {words}", no_wrap=True)
        yield line.append(f"  {about}" if about else "", "dim")
    if found.unneeded:
        line = Text(f"{text.size(found.unneeded):>10}  ", no_wrap=True)
        yield line.append("of the packs is needed by no version", "yellow")


def _left_out(count: int, what: str) -> Iterator[Text]:
    from stemmata.cli.styled import Text

    if count > _MOST:
        yield Text(f"and {text.count(count - _MOST, what)} more; see all with --json", "dim")
