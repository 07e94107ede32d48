"""`stemmata restore`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Refs, Repo, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument, VersionNotFound

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata restore sentiment@r4/epoch-1",
        "stemmata restore 3f9a12bc",
        "stemmata restore --entry 42",
        json="versions (list, as in log)",
    ),
)
def restore(
    context: typer.Context,
    references: Refs = None,
    entry: Annotated[
        int | None,
        typer.Option("--entry", metavar="N", help="Everything that this entry of the log deleted."),
    ] = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Show deleted versions again.

    By id or by a name of theirs: stemmata log --deleted lists them, with the entry that deleted each.
    """
    from stemmata import deleting

    output = output_for(context, as_json)
    if bool(references) == (entry is not None):
        raise InvalidArgument(argument="restore", reason="name versions, or an entry with --entry")
    with open_repo(context, repo) as repository:
        if entry is not None:
            found = [each.version for each in deleting.deleted(repository.session, n=entry)]
            if not found:
                hint = "stemmata log --deleted lists what can be restored"
                reason = "nothing that it deleted can be restored"
                raise VersionNotFound(reference=f"entry {entry}", reason=reason, hint=hint)
            versions = repository.restore(found)
        else:
            versions = repository.restore(list(references or ()))
        if output.json:
            output.document({"versions": [v.to_dict() for v in versions]})
            return
        from stemmata.cli.listing import versions_table

        output.show(
            f"Restored {text.count(len(versions), 'version')}", versions_table(versions, output.width)
        )
