"""`stemmata unprotect`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli.commands.protect import tell_policy
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Model, Repo, Why, open_repo, output_for
from stemmata.cli.registry import command_app

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        'stemmata unprotect sentiment production --why "the gate moves into CI"',
        json="model, name, protected, require (list), why",
    ),
)
def unprotect(
    context: typer.Context,
    model: Model,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias.")],
    why: Why = "",
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Let a protected alias move freely again.

    Who did so, when and why stands in stemmata history.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        repository.versions(model)  # refuses a model that is not there
        repository.unprotect(model, name, why=why)
        tell_policy(output, model, name, None)
