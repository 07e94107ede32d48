"""`stemmata label`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Ref, Repo, Why, open_repo, output_for, pairs
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata label sentiment@r8/epoch-3 team=search stage=candidate",
        "stemmata label sentiment@r8/epoch-3 --remove stage",
        "stemmata search sentiment 'label.team == \"search\"'",
        json="version (as in log)",
    ),
)
def label(
    context: typer.Context,
    reference: Ref,
    words: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Labels to set.")] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="KEY", help="Take this label away; may be given again."),
    ] = None,
    why: Why = "",
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Set or remove labels of a version."""
    output = output_for(context, as_json)
    labels: dict[str, str | None] = {**pairs(words, "label"), **dict.fromkeys(remove or ())}
    if not labels:
        raise InvalidArgument(argument="label", reason="give KEY=VALUE to set or --remove KEY")
    with open_repo(context, repo) as repository:
        version = repository.annotate(reference, labels=labels, why=why)
        if output.json:
            output.document({"version": version.to_dict()})
            return
        shown = "  ".join(f"{text.plain(k)}={text.plain(v)}" for k, v in sorted(version.labels.items()))
        output.show(f"{text.plain(version.model)}@{text.plain(version.name)}  {shown or 'no labels'}")
