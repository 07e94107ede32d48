"""`stemmata best`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Model, Repo, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata best sentiment",
        "stemmata best sentiment --metric eval_f1 --direction max --run r8",
        "stemmata best sentiment --metric eval_loss --declare",
        json="version (as in log), metric, direction, value, ties (list of ids)",
    ),
)
def best(
    context: typer.Context,
    model: Model,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="By this metric. Default: the model's primary metric."),
    ] = None,
    direction: Annotated[
        str | None, typer.Option("--direction", metavar="min|max", help="Whether less or more is better.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Among this run's versions.")
    ] = None,
    declare: Annotated[
        bool, typer.Option("--declare", help="Make --metric the model's primary metric from now on.")
    ] = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Show the best version of a model by a metric.

    NaN never wins. MODEL@best names the same version in every other command.
    """
    output = output_for(context, as_json)
    if direction not in (None, "min", "max"):
        raise InvalidArgument(argument="--direction", reason=f"{direction!r} is neither 'min' nor 'max'")
    if declare and metric is None and direction is None:
        raise InvalidArgument(argument="--declare", reason="it declares what --metric names; give one")
    with open_repo(context, repo) as repository:
        # First, so that a mistyped metric is refused and not declared.
        found = repository.find_best(model, metric, direction=direction, run=run)
        if declare:
            repository.configure(model, metric=metric, direction=direction)
            found = repository.find_best(model, metric, direction=direction, run=run)
        version = repository.get(found.row.id)
        value = found.value
        if output.json:
            output.document(
                {
                    "version": version.to_dict(),
                    "metric": found.metric,
                    "direction": found.direction,
                    "value": value,
                    "ties": [t.hex for t in found.ties],
                }
            )
            return
        from stemmata.cli.listing import BEST, DIM, ID, name_of
        from stemmata.cli.styled import Text

        line = name_of(version, model=True)
        line.append(f"  {version.short}", ID)
        word = "lowest" if found.direction == "min" else "highest"
        score = Text().append(f"  {word} {text.plain(found.metric)} ", DIM)
        score.append(text.precise(value), BEST)
        output.show(line, score)
        if found.metric_guessed or (found.direction_guessed and direction is None):
            options = f"--metric {found.metric} --direction {found.direction}"
            output.note(f"  told from its name; to settle it: stemmata best {model} {options} --declare")
        if found.ties:
            output.note(
                f"  {text.count(len(found.ties), 'other version')} with the same value: the earliest is shown"
            )
