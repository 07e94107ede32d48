"""`stemmata diff`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.config import has_arguments, telling
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import At, Heatmap, Html, Json, Repo, instant, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from datetime import datetime

    from stemmata.cli.output import Output
    from stemmata.compare.diff import Diff
    from stemmata.repository import Repository
    from stemmata.version import Version

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata diff sentiment@r4/epoch-3 sentiment@r8/epoch-3",
        "stemmata diff sentiment@production 'sentiment@production@{1}'",
        "stemmata diff sentiment@r4/final sentiment@r8/final sentiment@r16/final",
        "stemmata diff sentiment@r4/final sentiment@r8/final --step 100",
        "stemmata diff sentiment@production sentiment@best --heatmap",
        "stemmata diff sentiment@production sentiment@best --html diff.html",
        "stemmata diff sentiment@r4/final sentiment@r8/final sentiment@r16/final --html runs.html",
        "stemmata diff sentiment@production sentiment@best --eval sst2",
        json="a, b (id, name); about, config, data, provenance (added, removed, changed, same); metrics (by "
        "name: a, b, difference, direction, better, differing_data); environment (changes: kind, name, a, b, "
        "the most important first; same, unknown, alike); code (git, command, folder, texts, unknown, "
        "alike); tokenizer (vocabulary, added, removed, renumbered, counts, special, pipeline, settings, "
        "templates, notes, files); files (added, removed, changed, same); texts (name, lines, note); "
        "tensors (added, removed, changed, refitted, same); lora (a, b, changed); weights (moved, "
        "incomparable, as_stored, bytes_read); notes; kinship (ancestor, steps_a, steps_b); readings "
        "(with --step, --epoch: step, epoch, sources, problem); at (UTC or null). Of three and more: "
        "versions (id, name), metrics (by name: values, direction, best, differing_data), config, data, "
        "about, environment, lora, weights (different: by key the values of all; absent, same), unknown, "
        "readings, at. With --eval: eval, a, b (as in show), matched_by, key, score, binary, direction, "
        "better, worse, right, wrong, unchanged, unscored, only_a, only_b, without_key, twice, mean, "
        "differing_data; fixed, broken (lists of line_a, line_b, a, b)",
    ),
)
def diff(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="The version to start from.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The version that it leads to.")],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[C…]", help="More versions: a table with a column for each."),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option("--step", metavar="N", min=0, help="Metrics as each run had them at this step."),
    ] = None,
    epoch: Annotated[
        float | None,
        typer.Option("--epoch", metavar="E", min=0, help="Metrics as each run had them at this epoch."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", metavar="", help="Fold nothing: every package, token, line and tensor.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="Whether to tell how far each tensor moved.")
    ] = True,
    eval_name: Annotated[
        str | None,
        typer.Option(
            "--eval", metavar="NAME", help="Compare the examples of this eval alone: fixed, broken."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="FIELD",
            help="With --eval: match by this field; 'line': by place. Default: what both have.",
        ),
    ] = None,
    score_field: Annotated[
        str | None,
        typer.Option(
            "--score-field",
            metavar="FIELD",
            help="With --eval: how good an answer was. Default: correct, score, …",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", metavar="N", min=0, help="With --eval: show N of each kind. Default: 5."
        ),
    ] = None,  # not 5: the parser takes a third of a second to convert a number
    heatmap: Heatmap = False,
    html: Html = None,
    at: At = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two versions, or what varies among more.

    Config, metrics, data, environment, code, tokenizer, files, which tensors changed, and LoRA's rank, alpha
    and targets as the weights tell them. Two LoRAs are compared by what they add to the base's weights,
    whatever the factors. Differences come first, what is equal is counted, and what matters little is folded.

    With --eval it is what became of each example: matched by id, else by input, else by line.
    """
    output = output_for(context, as_json)
    moment = instant(at)
    with open_repo(context, repo) as repository:
        versions = [repository.get(each, at=moment) for each in (first, second, *(more or ()))]
        if eval_name is not None:
            # Nothing that was asked for goes unsaid: examples are compared in the terminal, as they are.
            for option, given in (
                ("--heatmap", heatmap),
                ("--html", html is not None),
                ("--step", step is not None),
                ("--epoch", epoch is not None),
            ):
                if given:
                    raise InvalidArgument(argument=option, reason="it does not go with --eval")
            _evals(
                output,
                repository,
                versions,
                eval_name,
                key,
                score_field,
                5 if limit is None else limit,
                moment,
            )
            return
        if key is not None or score_field is not None or limit is not None:
            raise InvalidArgument(argument="--eval", reason="--key, --score-field and --limit go with it")
        if len(versions) > 2:
            if heatmap:
                raise InvalidArgument(argument="--heatmap", reason="it shows how far one moved from another")
            _many(output, repository, versions, step, epoch, moment, html, full=full)
            return
        a, b = versions
        with output.progress("reading weights") as told:
            found = repository.diff(a, b, weights=weights, step=step, epoch=epoch, progress=told)
        if heatmap or html is not None:
            from stemmata.cli.pictures import tell

            tell(output, found, found.heatmap if heatmap else None, html)
            return
        if output.json:
            output.document({**found.to_dict(), "at": moment})
            return
        if moment is not None:
            output.note(f"as of {text.utc(moment)}")
        _two(output, repository, found, a, b, full=full)


def _two(output: Output, repository: Repository, found: Diff, a: Version, b: Version, *, full: bool) -> None:
    from stemmata.catalog.declared import Primary
    from stemmata.cli.differences import tell

    removed, added = found.config.removed, found.config.added
    if has_arguments(a) != has_arguments(b) and not full:
        # A hundred defaults of a Trainer that the other side never had tell nothing of either.
        shown_a, shown_b = telling(a)[0], telling(b)[0]
        removed = {k: v for k, v in removed.items() if k in shown_a}
        added = {k: v for k, v in added.items() if k in shown_b}
    unsaid = len(found.config.removed) + len(found.config.added) - len(removed) - len(added)
    primary = Primary(repository.session.catalog.connection, b.model).metric
    config = replace(found.config, removed=removed, added=added)
    tell(output, replace(found, config=config), primary, full=full)
    if unsaid:
        output.note(
            f"{text.count(unsaid, 'setting')} of the Trainer, on one side only, not shown; see --full"
        )


def _many(
    output: Output,
    repository: Repository,
    versions: list[Version],
    step: int | None,
    epoch: float | None,
    moment: datetime | None,
    html: str | None,
    *,
    full: bool,
) -> None:
    from stemmata.cli.sidebyside import tell

    a, b, c, *more = versions
    found = repository.diff(a, b, c, *more, step=step, epoch=epoch)
    if html is not None:
        from stemmata.cli import pictures

        pictures.tell(output, found, None, html)
        return
    if output.json:
        output.document({**found.to_dict(), "at": moment})
        return
    if moment is not None:
        output.note(f"as of {text.utc(moment)}")
    tell(output, found, full=full)


def _evals(
    output: Output,
    repository: Repository,
    versions: list[Version],
    name: str,
    key: str | None,
    score: str | None,
    limit: int,
    moment: datetime | None,
) -> None:
    from stemmata.cli.evals import tell_difference

    if len(versions) != 2:
        raise InvalidArgument(
            argument="--eval", reason="it compares the examples of two versions, not of more"
        )
    a, b = versions
    compared = repository.diff_evals(a, b, name, key=key, score=score, show=limit)
    if output.json:
        output.document({**compared.to_dict(), "at": moment})
        return
    if moment is not None:
        output.note(f"as of {text.utc(moment)}")
    tell_difference(output, compared, (f"{a.model}@{a.name}", f"{b.model}@{b.name}"))
