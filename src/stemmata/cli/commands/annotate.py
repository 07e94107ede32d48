"""`stemmata annotate`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Ref, Repo, Why, metrics, open_repo, output_for, pairs
from stemmata.cli.registry import command_app

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata annotate sentiment@r8/epoch-3 --metric human_score=4.2",
        'stemmata annotate sentiment@production --note "slow on long inputs" --label reviewed=yes',
        json="version (as in log)",
    ),
)
def annotate(
    context: typer.Context,
    reference: Ref,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="KEY=NUMBER", help="A metric; may be given again.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be given again.")
    ] = None,
    note: Annotated[str, typer.Option("--note", "-m", metavar="TEXT", help="A note.")] = "",
    why: Why = "",
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Add metrics, labels or notes to a version.

    What was saved stays as it is: annotations are kept beside it, with author and time. A metric that
    is there already shows the later value.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        version = repository.annotate(
            reference, metrics=metrics(metric), labels=pairs(label, "--label"), notes=note, why=why
        )
        if output.json:
            output.document({"version": version.to_dict()})
        else:
            output.show(f"Annotated {text.plain(version.model)}@{text.plain(version.name)}  {version.short}")
