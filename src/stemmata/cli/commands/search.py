"""`stemmata search`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Repo, open_repo, output_for
from stemmata.cli.registry import command_app

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata search sentiment 'eval_loss < 0.5 and lora.r == 8' --sort eval_loss",
        "stemmata search sentiment 'run ~ \"r8\" and not epoch < 2' --limit 5",
        'stemmata search sentiment \'label.stage in ["gold", "candidate"] and `learning rate` > 1e-5\'',
        json="versions (as in log), total, at (null)",
    ),
)
def search(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name; '-' for all models.")],
    expression: Annotated[str, typer.Argument(metavar="EXPR", help="What must hold of a version.")],
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="KEY", help="Order by a metric, a setting or a field.")
    ] = None,
    descending: Annotated[bool, typer.Option("--desc", help="Largest first.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", metavar="N", min=1, help="Show the first N.")
    ] = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Find versions by metrics, config and labels.

    Comparisons (== != < <= > >=, ~ for "contains", in [...], is none) of metrics, config keys and the
    fields step, epoch, run, name, alias, tag, event, kind, created_at, message, author, id, size and
    files, joined by and, or, not and brackets. The prefixes metrics., label., config. and data. say which
    is meant; names with blanks stand in backticks. Versions without a value do not match.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        from stemmata.catalog.selecting import check_expression
        from stemmata.cli.hints import unknown_keys

        name = None if model == "-" else model
        found = repository.search(name, expression, sort=sort, descending=descending, limit=limit)
        versions = list(found)
        if output.json:
            output.document({"versions": [v.to_dict() for v in versions], "total": len(versions), "at": None})
            return
        if not versions:
            output.note("no version matches")
            for words in unknown_keys(repository, name, check_expression(expression)):
                output.note(f"  {words}")
            return
        if sort is not None:
            for words in unknown_keys(repository, name, [sort]):
                output.note(f"not sorted: {words}")
        from stemmata.cli.listing import versions_table

        known = [sort] if sort is not None and any(sort in v.metrics for v in versions) else []
        output.show(versions_table(versions, output.width, metrics=known))
