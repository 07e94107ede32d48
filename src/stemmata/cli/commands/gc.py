"""`stemmata gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import DryRun, Json, Repo, Yes, open_repo, output_for
from stemmata.cli.output import Output
from stemmata.cli.registry import command_app
from stemmata.ids import VersionId

if TYPE_CHECKING:
    from stemmata.collecting import Collection

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata gc --dry-run",
        "stemmata gc -y",
        "stemmata gc -y --undo-window 0 --grace 0",
        json="dry (bool), forgotten (list of id, model, name, alone), freed, rewritten, packs_retired, "
        "packs_added, versions_placed, orphans, deleted, waiting, checkpoint, cached, leftovers; sizes in "
        "bytes",
    ),
)
def gc(
    context: typer.Context,
    dry_run: DryRun = False,
    undo_window: Annotated[
        str | None,
        typer.Option(
            "--undo-window",
            metavar="TIME",
            help="How long deleted versions stay restorable (0, 36h, 14d). Default: as each model says.",
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace",
            metavar="TIME",
            help="How long bytes stay that a reader or a save may still be at. Default: 1h for readers, "
            "24h for saves.",
        ),
    ] = None,
    trust_clock: Annotated[
        bool, typer.Option("--trust-clock", help="Believe the store's times, even where they make no sense.")
    ] = False,
    yes: Yes = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Free the bytes that no version needs.

    Deleted versions whose undo window is over are forgotten: they cannot be restored any more. Packs that
    hold something nobody needs are written anew without it. Their bytes are deleted by the first run after
    the readers' grace. It may run beside saves and reads, and be cut off at any moment.
    """
    output = output_for(context, as_json)
    window, wait = _seconds("--undo-window", undo_window), _seconds("--grace", grace)
    with open_repo(context, repo) as repository:
        shown = None
        if not dry_run and not yes:
            told = repository.gc(dry_run=True, undo_window=window, grace=wait, trust_clock=trust_clock)
            if told.forgotten:
                _tell(output, told)
                if not output.ask("Forget these versions for good?", undoable=False):
                    raise typer.Exit(1)
            # A dry run sees an earlier present than a run does, and others may delete meanwhile.
            shown = {VersionId.parse(version.id) for version in told.forgotten}
        found = repository.gc(
            dry_run=dry_run, undo_window=window, grace=wait, trust_clock=trust_clock, only=shown
        )
    if output.json:
        output.document(found.to_dict())
    else:
        _tell(output, found)


def _seconds(option: str, given: str | None) -> int | None:
    from stemmata.retention import seconds_of

    return None if given is None else seconds_of(option, given, least=0)


def _tell(output: Output, found: Collection) -> None:
    from stemmata.cli.listing import DIM, ID
    from stemmata.cli.styled import Text
    from stemmata.cli.tables import Column, table

    if output.json:
        return
    if found.forgotten:
        columns = [Column("version", shrink=16), Column("id"), Column("frees alone", right=True)]
        for version in found.forgotten:
            columns[0].add(f"{text.plain(version.model)}@{text.plain(version.name)}")
            columns[1].add(version.id[:12], ID)
            columns[2].add(text.size(version.alone))
        output.show(table(columns, output.width))
    would = "would be " if found.dry else ""
    rows = [
        (len(found.forgotten), text.count(len(found.forgotten), "version"), f"{would}forgotten"),
        (found.freed > 0, text.size(max(found.freed, 0)), f"{would}freed, in " + _packs(found)),
        (found.rewritten, text.size(found.rewritten), f"{would}written anew, to be rid of the rest"),
        (found.orphans, text.count(found.orphans, "pack"), f"{would}retired that a save left behind"),
        (found.deleted, text.size(found.deleted), f"{would}deleted from the store"),
        (
            found.waiting,
            text.size(found.waiting),
            "retired before, waiting for the readers' grace to be over",
        ),
        (found.checkpoint, text.size(found.checkpoint), "written, with which a cold open begins"),
        (found.cached, text.count(found.cached, "checkout"), f"{would}removed from the cache"),
        (found.leftovers, text.count(found.leftovers, "unfinished file"), f"{would}removed"),
    ]
    told = [(amount, words) for there, amount, words in rows if there]
    for amount, words in told:
        line = Text(f"{amount:>14}  ")
        line.append(words, DIM)
        output.show(line)
    if not told:
        output.show("Nothing to free.")


def _packs(found: Collection) -> str:
    return text.count(found.packs_retired, "pack")
