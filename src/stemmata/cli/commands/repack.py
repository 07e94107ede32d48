"""`stemmata repack`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import DryRun, Json, Repo, open_repo, output_for
from stemmata.cli.registry import command_app

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata repack --dry-run",
        "stemmata repack sentiment",
        json="as of gc: freed, rewritten, packs_retired, packs_added, versions_placed …; sizes in bytes",
    ),
)
def repack(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Tensors of this model alone.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Code tensors anew where that makes them smaller, in fewer packs.

    Reads and codes every tensor, so it takes as long as saving all versions did. What it replaces is deleted
    by stemmata gc, after the readers' grace. Reading a version decodes at most 4 times its own bytes.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        found = repository.repack(model, dry_run=dry_run)
    if output.json:
        output.document(found.to_dict())
    elif not found.packs_retired:
        output.show("Nothing to gain.")
    elif dry_run:
        output.show(f"{text.count(found.packs_retired, 'pack')} would be looked at.")
    else:
        output.show(
            f"{text.count(found.packs_retired, 'pack')} became {found.packs_added}, "
            f"{text.size(max(found.freed, 0))} smaller."
        )
        output.note("stemmata gc deletes what was replaced, once the readers' grace is over")
