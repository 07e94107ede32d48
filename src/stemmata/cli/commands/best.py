"""`stemmata best`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import overfitting, text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Model, Repo, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from stemmata.cli.styled import Text
    from stemmata.resolve import BestFound
    from stemmata.version import Version

app = command_app()
_SHOWN = 10


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata best sentiment",
        "stemmata best sentiment --metric eval_f1 --direction max --run r8",
        "stemmata best sentiment --metric eval_loss --declare",
        json="version (as in log), metric, direction, value, ties (list of ids of versions that are just as "
        "good), tied (the same: list of id, model, name), chosen (only, or earliest of equals), overfitting "
        "(of its run, as in log, or null)",
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

    NaN never wins, and of equal versions the one that was saved first does; the others are listed. Whether
    less or more is better the metric's name tells, what was declared, or --direction. MODEL@best names the
    same version in every other command.
    """
    output = output_for(context, as_json)
    if direction not in (None, "min", "max"):
        raise InvalidArgument(argument="--direction", reason=f"{direction!r} is neither 'min' nor 'max'")
    if declare and metric is None and direction is None:
        raise InvalidArgument(argument="--declare", reason="it declares what --metric names; give one")
    with open_repo(context, repo) as repository:
        from stemmata.catalog import queries

        # First, so that a mistyped metric is refused and not declared.
        found = repository.find_best(model, metric, direction=direction, run=run)
        if declare:
            # A direction alone goes with the metric that is declared, or else with the one that was found.
            named = metric or (found.metric if found.metric_guessed else None)
            repository.configure(model, metric=named, direction=direction)
            found = repository.find_best(model, metric, direction=direction, run=run)
        version = repository.get(found.row.id)
        hint = overfitting.of_version(version)
        value = found.value
        if output.json:
            connection = repository.session.catalog.connection
            ties = [(each.hex, name) for each, name in queries.first_names(connection, found.ties)]
            told = _document(version, found, ties)
            output.document({**told, "overfitting": hint.to_dict() if hint is not None else None})
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
            shown = [repository.get(each) for each in found.ties[:_SHOWN]]
            output.show(*_tied(shown, len(found.ties) - len(shown), value))
            output.note("  of equals the one that was saved first is the best")
        if hint is not None:
            output.note(f"  its run: {overfitting.words(hint)}")


def _document(version: Version, found: BestFound, ties: Sequence[tuple[str, str]]) -> dict[str, object]:
    return {
        "version": version.to_dict(),
        "metric": found.metric,
        "direction": found.direction,
        "value": found.value,
        "ties": [tie for tie, _ in ties],
        "tied": [{"id": tie, "model": version.model, "name": name} for tie, name in ties],
        "chosen": "earliest" if ties else "only",
    }


def _tied(shown: Sequence[Version], more: int, value: float) -> Iterator[Text]:
    """Those that are just as good."""
    from stemmata.cli.listing import DIM, ID, name_of
    from stemmata.cli.styled import Text

    yield Text(f"  just as good, {text.precise(value)}:", DIM)
    for tie in shown:
        yield Text("    ").append_text(name_of(tie, model=True)).append(f"  {tie.short}", ID)
    if more:
        yield Text(f"    and {text.count(more, 'more version')}; see --json", DIM)
