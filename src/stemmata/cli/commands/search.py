"""`stemmata search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Repo, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument, InvalidName

if TYPE_CHECKING:
    from stemmata.versions import VersionList

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata search sentiment 'eval_loss < 0.5 and lora.r == 8' --sort eval_loss",
        "stemmata search sentiment 'run ~ \"r8\" and not epoch < 2' --limit 5",
        'stemmata search sentiment \'label.stage in ["gold", "candidate"] and `learning rate` > 1e-5\'',
        "stemmata search --descends-from sentiment@production",
        "stemmata search sentiment 'eval_loss < 0.5' --trained-on stanfordnlp/imdb",
        json="versions (as in log), total (how many there are, whatever --limit), at (null)",
    ),
)
def search(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The model's name; '-' for all models.", show_default=False)
    ] = "-",
    expression: Annotated[
        str, typer.Argument(metavar="EXPR", help="What must hold of a version.", show_default=False)
    ] = "",
    descends_from: Annotated[
        str | None,
        typer.Option(
            "--descends-from", metavar="REF", help="Only what came from this version, in any model."
        ),
    ] = None,
    trained_on: Annotated[
        str | None,
        typer.Option(
            "--trained-on",
            metavar="DATA",
            help="Only what was trained on this data: its name or fingerprint.",
        ),
    ] = None,
    from_base: Annotated[
        str | None,
        typer.Option("--from-base", metavar="NAME", help="Only what is loaded on this base model."),
    ] = None,
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
    """Find versions by metrics, config, labels and origin.

    Comparisons (== != < <= > >=, ~ for "contains", in [...], is none) of metrics, config keys and the
    fields step, epoch, run, name, alias, tag, event, kind, created_at, message, author, id, size and
    files, joined by and, or, not and brackets. The prefixes metrics., label., config. and data. say which
    is meant; names with blanks stand in backticks. Versions without a value do not match.

    With --descends-from, --trained-on or --from-base no expression is needed; without a model all are
    searched. In an expression: descends_from == "model@name", trained_on == "…", from_base == "…".
    """
    output = output_for(context, as_json)
    if not expression and model != "-" and not _is_name(model):
        model, expression = "-", model
    if not expression and descends_from is trained_on is from_base is None:
        reason = "say what must hold of a version, such as 'eval_loss < 0.5'"
        raise InvalidArgument(argument="EXPR", reason=reason)
    with open_repo(context, repo) as repository:
        from stemmata.catalog.selecting import check_expression
        from stemmata.cli.hints import unknown_keys

        name = None if model == "-" else model
        found = _found(repository.versions(name), expression, descends_from, trained_on, from_base)
        shown = found.sort(sort, descending=descending) if sort is not None else found
        versions = list(shown if limit is None else shown.limit(limit))
        total = len(versions) if limit is None or len(versions) < limit else len(found)
        if output.json:
            output.document({"versions": [v.to_dict() for v in versions], "total": total, "at": None})
            return
        if not versions:
            output.note("no version matches")
            for words in unknown_keys(repository, name, check_expression(expression) if expression else ()):
                output.note(f"  {words}")
            return
        if sort is not None:
            for words in unknown_keys(repository, name, [sort]):
                output.note(f"not sorted: {words}")
        from stemmata.cli.listing import versions_table

        known = [sort] if sort is not None and any(sort in v.metrics for v in versions) else []
        output.show(versions_table(versions, output.width, metrics=known))
        if len(versions) < total:
            more = text.count(total - len(versions), "more version")
            output.note(f"{more} not shown; raise --limit to see them")


def _is_name(model: str) -> bool:
    from stemmata.names import clean_name

    try:
        clean_name(model)
    except InvalidName:
        return False
    return True


def _found(
    versions: VersionList,
    expression: str,
    descends_from: str | None,
    trained_on: str | None,
    from_base: str | None,
) -> VersionList:
    """Those of which everything holds that was given."""
    if descends_from is not None:
        versions = versions.descends_from(descends_from)
    if trained_on is not None:
        versions = versions.trained_on(trained_on)
    if from_base is not None:
        versions = versions.from_base(from_base)
    return versions.where(expression) if expression else versions
