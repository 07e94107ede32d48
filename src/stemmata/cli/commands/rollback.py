"""`stemmata rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli.commands.alias import tell_move
from stemmata.cli.commands.history import no_such_alias
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Model, Repo, Why, of_model, open_repo, output_for
from stemmata.cli.registry import command_app

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata rollback sentiment production",
        'stemmata rollback sentiment production --to @r4/epoch-3 --why "latency"',
        json="model, name, from (id), to (id), at, by, why, rollback",
    ),
)
def rollback(
    context: typer.Context,
    model: Model,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The alias.")],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="REF", help="Go to this version. Default: where it was before."),
    ] = None,
    why: Why = "",
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Move an alias back to what it was before.

    Nothing is lost: the move is one more line of its history. A second rollback goes further back.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        if not repository.history(model, name):
            raise no_such_alias(model, name)
        target = None if to is None else of_model(model, to)
        tell_move(output, repository, repository.rollback(model, name, to=target, why=why))
