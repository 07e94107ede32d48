"""`stemmata lineage`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Html, Json, Repo, open_repo, output_for
from stemmata.cli.registry import command_app

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata lineage sentiment",
        "stemmata lineage sentiment@production",
        "stemmata lineage sentiment --all --metric eval_f1",
        "stemmata lineage sentiment --html lineage.html",
        json="of, focus (id or null), nodes (list of id, model, name, state, run, kind, event, step, epoch, "
        "created_at, author, message, bytes, metrics, aliases, tags, parents, merged, base, best, "
        "repeats), edges "
        "(list of from, to, kind: line, resume, fork, merge or base), primary (by model: metric, direction)",
    ),
)
def lineage(
    context: typer.Context,
    of: Annotated[
        str | None,
        typer.Argument(metavar="REF|MODEL", help="A version or a model. Default: all models."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Fold nothing: show every version of a long run.")
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Show this metric. Default: the model's primary one."),
    ] = None,
    html: Html = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Draw which version came from which, as a tree.

    Of a model all versions, and what of other models they came from; of a version what it came from and
    what came from it. A run goes straight down; what else came from a version hangs from it. MODEL alone is
    the model, MODEL@latest its newest version.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        found = repository.lineage(of)
        if html is not None:
            from stemmata.cli.pictures import tell

            tell(output, found.graph(), None, html)
            return
        if output.json:
            output.document(found.to_dict())
            return
        if not len(found):
            output.note("no versions yet; make one with: stemmata save FOLDER MODEL")
            return
        if metric is not None and not any(metric in node.metrics for node in found.nodes):
            from stemmata.cli.hints import unknown_keys

            for words in unknown_keys(repository, None, [f"metrics.{metric}"]):
                output.note(words.replace("'metrics.", "the metric '"))
        from stemmata.cli.lineage import drawn, legend

        now = datetime.now(UTC)
        output.show(drawn(found, output.width, metric=metric, everything=everything, now=now))
        for words in ["", *rows] if (rows := legend(found, output.width, everything=everything)) else []:
            output.note(words)
