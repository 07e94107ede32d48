"""`stemmata delete`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import DryRun, Json, Refs, Repo, Why, Yes, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.cli.styled import Text
    from stemmata.deleting import Going

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        'stemmata delete sentiment@r4/epoch-1 sentiment@r4/epoch-2 --why "diverged"',
        "stemmata delete 3f9a12bc --dry-run",
        "stemmata delete --deletable sentiment",
        json="dry_run, versions (list of id, model, name, bytes, names, children, loaded_on), entry (of the "
        "log, or null)",
    ),
)
def delete(
    context: typer.Context,
    references: Refs = None,
    deletable: Annotated[
        str | None,
        typer.Option(
            "--deletable", metavar="MODEL", help="What the --keep of its runs marked and nothing needs now."
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", metavar="", help="Also what other versions are loaded on as their base."),
    ] = False,
    why: Why = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Hide versions; they can be restored for 14 days at least.

    Nothing is freed until stemmata gc runs after that time (stemmata retain MODEL --undo-window sets it).
    What an alias or tag points at is refused. All of them are deleted, or none.
    """
    from stemmata import deleting

    output = output_for(context, as_json)
    if bool(references) == (deletable is not None):
        raise InvalidArgument(argument="delete", reason="name versions, or a model with --deletable")
    with open_repo(context, repo) as repository:
        session = repository.session
        if deletable is not None:
            repository.versions(deletable)  # refuses a model that is not there
            wanted = deleting.marked(session.catalog.connection, deletable)
        else:
            repository.refresh()
            wanted = [deleting.meant(session, reference) for reference in references or ()]
        found, entry = deleting.delete(session, wanted, force=force, dry_run=True)
        if found and not dry_run:
            question = f"Delete {text.count(len(found), 'version')}?"
            if not (yes or output.json):
                output.show(table_of(found, output.width))
            if not (yes or output.ask(question)):
                raise typer.Abort
            found, entry = deleting.delete(session, wanted, why=why, force=force)
        if output.json:
            rows = [document(each) for each in found]
            output.document({"dry_run": dry_run, "versions": rows, "entry": entry})
        elif not found:
            output.note("there is nothing to delete")
        elif dry_run:
            output.show(table_of(found, output.width))
            output.note(f"{text.count(len(found), 'version')} would be deleted; nothing was changed")
        else:
            tell(output, len(found), entry)


def tell(output: Output, count: int, entry: int | None) -> None:
    """What was done, and how it is undone."""
    output.show(f"Deleted {text.count(count, 'version')}")
    output.note(f"undo with: stemmata restore --entry {entry}")


def document(each: Going) -> dict[str, object]:
    """A version that goes, as JSON shows it."""
    return {
        "id": each.version.hex,
        "model": each.model,
        "name": each.name,
        "bytes": each.bytes,
        "names": each.names,
        "children": each.children,
        "loaded_on": each.loaded_on,
    }


def table_of(found: Sequence[Going], width: int) -> Text:
    """What would go: its size, what else names it, and which children keep their link to it."""
    from stemmata.cli.listing import DIM, ID, NAME
    from stemmata.cli.tables import Column, table

    columns = [Column("version", shrink=16), Column("id", 1), Column("size", 2, right=True)]
    columns += [Column("other names", 4, shrink=10), Column("children keep their link", 5, shrink=12)]
    columns += [Column("base of", 3, shrink=12)]
    for each in found:
        columns[0].add(text.plain(f"{each.model}@{each.name}"), NAME)
        columns[1].add(each.version.short, ID)
        columns[2].add(text.size(each.bytes), DIM)
        for column, names in zip(columns[3:], (each.names, each.children, each.loaded_on), strict=True):
            column.add(text.plain(", ".join(names)))
    return table(columns, width)
