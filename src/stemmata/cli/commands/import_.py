"""`stemmata import`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Repo, TakeIn, a_path, open_repo, output_for
from stemmata.cli.output import Output
from stemmata.cli.registry import command_app

if TYPE_CHECKING:
    from stemmata.intake import Outcome

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata import out --dry-run",
        "stemmata import out --model sentiment --run r8",
        "stemmata import model_versions --model sentiment",
        json="dry_run, versions (list of path, model, name, status, id, step, epoch, metrics, created_at, "
        "reason, warning)",
    ),
)
def import_(
    context: typer.Context,
    folders: Annotated[
        list[str], typer.Argument(metavar="OUTPUT_DIR…", help="What trainings wrote.", show_default=False)
    ],
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model. Default: the folder's name.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="The run. Default: the folder's name.")
    ] = None,
    include: TakeIn = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Show what would be taken in, and write nothing.")
    ] = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Take in what trainings left behind: Trainer outputs, v_* folders, adapters.

    Every complete checkpoint-N and the final save become a run's versions, with the step, epoch and metrics
    of trainer_state.json or the metadata_*.json beside a v_* folder. What is there already is recognised;
    optimizer, scheduler and random states are left out.
    """
    from stemmata.intake import import_folders
    from stemmata.names import clean_name

    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        outcomes = import_folders(
            repository,
            [a_path(folder, "FOLDER") for folder in folders],
            model=clean_name(model) if model is not None else None,
            run=clean_name(run) if run is not None else None,
            include=include or (),
            dry_run=dry_run,
        )
    if output.json:
        output.document({"dry_run": dry_run, "versions": [document(o) for o in outcomes]})
    else:
        _tell(output, outcomes, dry_run)
    failed = next((o.error for o in outcomes if o.error is not None), None)
    if failed is not None:
        raise typer.Exit(failed.exit_code)


def document(outcome: Outcome) -> dict[str, object]:
    """What --json prints of one finding."""
    found = outcome.found
    return {
        "path": str(found.path),
        "model": found.model,
        "name": found.name,
        "status": outcome.status,
        "id": outcome.version.hex if outcome.version else None,
        "step": found.state.step,
        "epoch": found.state.epoch,
        "metrics": found.metrics,
        "created_at": found.created_at,
        "reason": outcome.reason,
        "warning": found.warning,
    }


def _tell(output: Output, outcomes: list[Outcome], dry_run: bool) -> None:
    from stemmata.cli.listing import DIM, ID, NAME
    from stemmata.cli.tables import Column, table
    from stemmata.cli.words import MEANINGS

    titles = [("version", 0, 16), ("", 0, None), ("id", 3, None), ("step", 2, None), ("metrics", 4, 12)]
    columns = [Column(title, rank, shrink=shrink) for title, rank, shrink in titles]
    for outcome in outcomes:
        found = outcome.found
        columns[0].add(text.plain(f"{found.model}@{found.name}"), NAME)
        columns[1].add(MEANINGS[outcome.status])
        columns[2].add(outcome.version.short if outcome.version else "", ID)
        columns[3].add("" if found.state.step is None else str(found.state.step))
        shown = [f"{text.plain(k)}={text.number(v)}" for k, v in list(found.metrics.items())[:3]]
        columns[4].add(" ".join(shown), DIM)
    output.show(table(columns, output.width))
    for outcome in outcomes:
        for words in filter(None, (outcome.reason, outcome.found.warning)):
            output.note(f"{text.plain(str(outcome.found.path))}: {text.plain(words)}")
    new = sum(o.status == "new" for o in outcomes)
    if dry_run:
        output.note(f"{text.count(new, 'version')} would be taken in; nothing was written")
    elif not new:
        output.note("nothing new")
