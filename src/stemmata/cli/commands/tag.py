"""`stemmata tag`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Model, RefOfModel, Repo, of_model, open_repo, output_for
from stemmata.cli.registry import command_app

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata tag sentiment v1.0 @r8/epoch-3",
        "stemmata tag sentiment paper 3f9a12bc",
        json="model, name, version (as in log)",
    ),
)
def tag(
    context: typer.Context,
    model: Model,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tag.")],
    reference: RefOfModel,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Give a version a tag, a name that never moves.

    For names that move use stemmata alias; for key=value use stemmata label.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        version = repository.get(of_model(model, reference))
        repository.tag(model, name, version)
        version = repository.get(version.id)
        if output.json:
            output.document({"model": version.model, "name": name, "version": version.to_dict()})
        else:
            output.show(
                f"Tagged {text.plain(version.model)}@{text.plain(version.name)} as {text.plain(name)}"
            )
