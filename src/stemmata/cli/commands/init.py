"""`stemmata init`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, output_for, repo_path
from stemmata.cli.registry import command_app
from stemmata.cli.text import plain

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples("stemmata init", "stemmata init /data/models", json="repository (its id), where"),
)
def init(
    context: typer.Context,
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR",
            help="The folder that becomes the repository. Default: $STEMMATA_REPO, else .stemmata here.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a repository.

    A repository is one folder that holds any number of models. Commands below the folder that holds
    .stemmata find it by themselves; for any other place use --repo or STEMMATA_REPO.
    """
    from stemmata import repository

    output = output_for(context, as_json)
    chosen = folder or repo_path(context, None)
    where = chosen or os.environ.get(repository.VARIABLE) or repository.FOLDER
    with repository.init(where) as repo:
        if output.json:
            output.document({"repository": repo.id, "where": repo.where})
            return
        output.show(f"Made a repository at {plain(str(repo.where))}")
        output.note(
            f"next: stemmata save OUTPUT_FOLDER MODEL{'' if chosen is None else f' -R {plain(where)}'}"
        )
