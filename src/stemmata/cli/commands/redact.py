"""`stemmata redact`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import DryRun, Json, Ref, Repo, Why, Yes, open_repo, output_for
from stemmata.cli.registry import command_app

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        'stemmata redact sentiment@r8/epoch-3 command --why "a token on the command line"',
        "stemmata redact sentiment@r8/epoch-3 command environment --everywhere --dry-run",
        json="dry_run, versions (list of id, version, kinds), elsewhere (how many versions still hold the "
        "same bytes)",
    ),
)
def redact(
    context: typer.Context,
    reference: Ref,
    kinds: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND…", help="Kinds of provenance, as stemmata show lists them.", show_default=False
        ),
    ],
    everywhere: Annotated[
        bool,
        typer.Option("--everywhere", metavar="", help="Of every version that holds the same bytes."),
    ] = False,
    why: Why = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Hand out no more, for good, what a version's provenance says.

    A tombstone stays: when, by whom, why. stemmata gc erases the bytes, as soon as no other version
    holds them. It cannot be undone. Config, metrics and messages are part of the record and stay.
    """
    from stemmata import redacting

    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        target = repository.get(reference).id
        session = repository.session
        found, others = redacting.redact(session, target, kinds, everywhere=everywhere, dry_run=True)
        if not dry_run:
            question = f"Redact {', '.join(kinds)} of {text.count(len(found), 'version')} for good?"
            if not (yes or output.ask(text.plain(question), undoable=False)):
                raise typer.Abort
            found, others = redacting.redact(session, target, kinds, why=why, everywhere=everywhere)
        if output.json:
            rows = [{"id": e.version.hex, "version": e.label, "kinds": e.kinds} for e in found]
            output.document({"dry_run": dry_run, "versions": rows, "elsewhere": others})
            return
        word = "Would redact" if dry_run else "Redacted"
        for each in found:
            output.show(f"{word} {text.plain(', '.join(each.kinds))} of {text.plain(each.label)}")
        if others:
            words = text.count(others, "other version holds", "other versions hold")
            output.note(f"{words} the same bytes: redact them too with --everywhere")
        if not dry_run:
            output.note("the bytes are erased by: stemmata gc")
