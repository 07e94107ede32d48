"""`stemmata log`."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import At, Html, Json, Repo, instant, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.histories.overfitting import Overfitting
    from stemmata.repository import Repository
    from stemmata.version import Version

app = command_app()
_SHOWN = 50


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata log",
        "stemmata log sentiment --run r8 --metric eval_loss --metric f1",
        "stemmata log sentiment --curves",
        "stemmata log sentiment --html sentiment.html",
        'stemmata log sentiment --at "last friday"',
        "stemmata log --deleted",
        json="versions (list, newest first: id, model, name, names, aliases, tags, created_at, author, "
        "message, parents, run, step, epoch, event, kind, metrics, labels, notes, config, data, "
        "base, files, bytes), total (how many there are), overfitting (list of model, run, metric, "
        "direction, training, best, since, last: id, name, step, epoch, value), at (UTC or null). Without "
        "--limit all are listed. "
        "With --deleted: deleted (list of id, model, name, bytes, at, by, why, until, entry), total.",
    ),
)
def log(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this model's versions.")] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Only this run's versions.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, help=f"Show the newest N. Default: {_SHOWN}."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Show this metric; may be given again."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Show all of them.")] = False,
    curves: Annotated[
        bool, typer.Option("--curves", metavar="", help="Draw the metrics of the runs instead.")
    ] = False,
    html: Html = None,
    deleted: Annotated[
        bool, typer.Option("--deleted", metavar="", help="List the deleted versions that can be restored.")
    ] = False,
    at: At = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """List versions, newest first.

    One line a version: id, name, [aliases] and #tags, epoch, step, age, metrics, size, message. The
    model's primary metric comes first and the best value of each metric is highlighted. Columns that
    do not fit the terminal are left out; in a pipe nothing is.
    """
    output = output_for(context, as_json)
    moment = instant(at)
    with open_repo(context, repo) as repository:
        repository.versions(model)  # refuses a model that is not there
        if deleted:
            others = {"--run": run is not None, "--at": at is not None, "--curves": curves, "--html": html}
            if given := [option for option, is_there in others.items() if is_there]:
                reason = f"{' and '.join(given)} cannot be given with it"
                raise InvalidArgument(argument="--deleted", reason=reason)
            _tell_deleted(output, repository, model, limit or (None if everything or output.json else _SHOWN))
            return
        limit = min(limit, sys.maxsize) if limit else None
        most = limit or (None if everything or output.json else _SHOWN)
        shown, total = _versions(repository, model, run, moment, most)
        if run is not None and not total:
            from stemmata.cli import hints
            from stemmata.names import name_key
            from stemmata.resolve import no_such_run

            known = hints.runs(repository, model)
            same = next((name for name in known if name_key(name) == name_key(run)), None)
            if same is None:
                raise no_such_run(model or "", run, known, f"{model}@{run}" if model else run)
            if same != run:
                run = same
                shown, total = _versions(repository, model, run, moment, most)
        if curves or html is not None:
            from stemmata.cli.pictures import tell

            listed = repository.versions(model, at=moment)
            if run is not None:
                listed = listed.of_run(run)
            listed = listed.limit(limit) if limit else listed
            tell(output, listed, (lambda: listed.curves(*(metric or ()))) if curves else None, html)
            return
        if output.json:
            documents = [v.to_dict() for v in shown]
            told = [each.to_dict() for each in _overfitting(shown, moment)]
            output.document({"versions": documents, "total": total, "overfitting": told, "at": moment})
            return
        if moment is not None:
            output.note(f"as of {text.utc(moment)}")
        if not shown:
            nothing = "no versions yet; make one with: stemmata save FOLDER MODEL"
            if moment is None and run is None and repository.deleted(model):
                nothing = "no versions are left; stemmata log --deleted lists what can be restored"
            output.note(nothing if moment is None and run is None else "there was no version")
            return
        if metric:
            from stemmata.cli.hints import unknown_keys

            for words in unknown_keys(repository, model, (f"metrics.{m}" for m in metric)):
                output.note(words.replace("'metrics.", "the metric '"))
        from stemmata.cli.listing import versions_table

        output.show(versions_table(shown, output.width, metrics=metric or ()))
        if len(shown) < total:
            output.note(f"{text.count(total - len(shown), 'older version')} not shown; see all with --all")
        for each in _overfitting(shown, moment):
            from stemmata.cli.overfitting import words as words_of

            output.note(f"{text.plain(each.model)}@{text.plain(each.run)}: {words_of(each)}")


def _overfitting(shown: list[Version], at: datetime | None) -> list[Overfitting]:
    """Hints are about the present: none of how things stood."""
    if at is not None:
        return []
    from stemmata.cli.overfitting import of_versions

    return of_versions(shown)


def _versions(
    repository: Repository, model: str | None, run: str | None, at: datetime | None, limit: int | None
) -> tuple[list[Version], int]:
    """The newest `limit` versions, and how many there are."""
    from stemmata.catalog import selecting
    from stemmata.names import name_key
    from stemmata.records import timestamp
    from stemmata.version import Version

    session = repository.session
    key = name_key(model) if model is not None else None
    then = timestamp(at) if at is not None else None
    connection = session.catalog.connection
    rows = selecting.versions(connection, key, run=run, at=then, limit=limit)
    total = selecting.count_versions(connection, key, run=run, at=then) if limit else len(rows)
    return [Version(session, row, at=then) for row in rows], total


def _tell_deleted(output: Output, repository: Repository, model: str | None, limit: int | None) -> None:
    """What can be restored, the last deleted first."""
    every = repository.deleted(model)
    found = every[:limit]
    if output.json:
        rows = [
            {
                "id": each.version.hex,
                "model": each.model,
                "name": each.name,
                "bytes": each.row.bytes,
                "at": each.at,
                "by": each.by,
                "why": each.why,
                "until": each.until,
                "entry": each.n,
            }
            for each in found
        ]
        output.document({"deleted": rows, "total": len(every)})
        return
    if not found:
        output.note("nothing that was deleted can be restored")
        return
    from datetime import UTC

    from stemmata.cli.listing import DIM, ID, NAME
    from stemmata.cli.tables import Column, table

    now = datetime.now(UTC)
    columns = [Column("version", shrink=16), Column("id"), Column("size", 5, right=True)]
    columns += [Column("deleted", 1, right=True), Column("by", 4), Column("entry", 2, right=True)]
    columns += [Column("restorable until", 3), Column("why", 1, shrink=16)]
    for each in found:
        columns[0].add(text.plain(f"{each.model}@{each.name}"), NAME)
        columns[1].add(each.version.short, ID)
        columns[2].add(text.size(each.row.bytes), DIM)
        columns[3].add(text.age(each.at, now), DIM)
        columns[4].add(text.plain(each.by))
        columns[5].add(str(each.n))
        columns[6].add(text.local(each.until), DIM)
        columns[7].add(text.plain(each.why))
    output.show(table(columns, output.width))
    if len(found) < len(every):
        output.note(f"{text.count(len(every) - len(found), 'earlier one')} not shown; see all with --all")
