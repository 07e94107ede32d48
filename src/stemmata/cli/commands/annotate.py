"""`stemmata annotate`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Ref, Repo, Why, metrics, open_repo, output_for, pairs
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument
from stemmata.moves import require_annotations

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata annotate sentiment@r8/epoch-3 --metric human_score=4.2",
        'stemmata annotate sentiment@production --note "slow on long inputs" --label reviewed=yes',
        "stemmata annotate sentiment@best --metric accuracy=0.91 --dataset sst2-test --source 'lm-eval 0.4'",
        "stemmata annotate sentiment@best --eval sst2 --examples out.jsonl --metric accuracy=0.91",
        json="version (as in log), eval (name, metrics, dataset, source, at, by, why, examples, bytes, "
        "kind; or null)",
    ),
)
def annotate(
    context: typer.Context,
    reference: Ref,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="KEY=NUMBER", help="A metric; may be given again.")
    ] = None,
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="NAME", help="What the metrics were measured on.")
    ] = "",
    fingerprint: Annotated[
        str, typer.Option("--fingerprint", metavar="TEXT", help="What tells that data from any other.")
    ] = "",
    source: Annotated[
        str, typer.Option("--source", metavar="TEXT", help="What measured: a program, its version, a link.")
    ] = "",
    name: Annotated[
        str,
        typer.Option(
            "--eval", metavar="NAME", help="Keep it as an eval. Default with --examples: NAME of the data."
        ),
    ] = "",
    example_file: Annotated[
        str | None,
        typer.Option("--examples", metavar="FILE", help="What became of each example: a JSON object a line."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be given again.")
    ] = None,
    note: Annotated[str, typer.Option("--note", "-m", metavar="TEXT", help="A note.")] = "",
    why: Why = "",
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Add metrics, labels, notes or an eval to a version.

    What was saved stays as it is: annotations are kept beside it, with author and time. A metric that
    is there already shows the later value. With --dataset a gate compares it only with what was measured on
    the same; the examples of an eval are compared by stemmata diff A B --eval NAME.
    """
    output = output_for(context, as_json)
    given, labels = metrics(metric), pairs(label, "--label")
    if example_file is not None and not (name or dataset):
        raise InvalidArgument(
            argument="--examples", reason="say of which eval, with --eval NAME or --dataset"
        )
    is_eval = bool(name) or example_file is not None
    require_annotations(labels, note)
    with open_repo(context, repo) as repository:
        version, kept, twice = repository.get(reference), None, list[int]()
        if is_eval:
            kept = version.add_eval(
                name or dataset,
                metrics=given,
                dataset=dataset,
                fingerprint=fingerprint,
                source=source,
                examples=example_file,
                why=why,
                told=lambda found: twice.extend(found.twice),
            )
        if not is_eval or labels or note:
            version = repository.annotate(
                version,
                metrics={} if is_eval else given,
                labels=labels,
                notes=note,
                why=why,
                dataset="" if is_eval else dataset,
                fingerprint="" if is_eval else fingerprint,
                source="" if is_eval else source,
            )
        if output.json:
            fresh = repository.get(version.id)
            output.document({"version": fresh.to_dict(), "eval": kept.to_dict() if kept else None})
            return
        output.show(f"Annotated {text.plain(version.model)}@{text.plain(version.name)}  {version.short}")
        if kept is not None and kept.count:
            size = text.size(kept.bytes)
            output.show(f"  eval {text.plain(kept.name)}: {text.count(kept.count, 'example')}, {size}")
        if twice:
            lines = ", ".join(map(str, twice))
            output.note(f"some ids occur more than once (as on line {lines}); a diff leaves them out")
