"""`stemmata retain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.commands.delete import tell
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import DryRun, Json, Model, Repo, Why, Yes, open_repo, output_for
from stemmata.cli.output import Output
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from stemmata.cli.styled import Text
    from stemmata.repository import Repository
    from stemmata.retaining import Retained

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata retain sentiment --last 3 --best 2:eval_loss --dry-run",
        "stemmata retain sentiment --every 7d --within 30d --best 1:eval_f1:max",
        "stemmata retain sentiment",
        "stemmata retain sentiment --undo-window 30d",
        json="model, policy (or null), undo_window (seconds), dry_run, versions (list, newest first: id, "
        "name, goes, kept (list of reasons), why), entry (of the log, or null)",
    ),
)
def retain(
    context: typer.Context,
    model: Model,
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=1, help="Keep the newest N versions.")
    ] = None,
    best: Annotated[
        list[str] | None,
        typer.Option(
            "--best", metavar="N:METRIC", help="Keep the N best; N:METRIC:max says which way. Repeatable."
        ),
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="7d", help="Keep the newest version of each 7 days.")
    ] = None,
    within: Annotated[
        str | None,
        typer.Option("--within", metavar="30d", help="Keep what is not older, against the newest version."),
    ] = None,
    undo_window: Annotated[
        str | None,
        typer.Option("--undo-window", metavar="30d", help="How long a deletion can be undone. Default: 14d."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", metavar="", help="Show the policy; change nothing.")
    ] = False,
    clear: Annotated[
        bool, typer.Option("--clear", metavar="", help="Take the policy away; delete nothing.")
    ] = False,
    why: Why = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Set what a model keeps, and delete the rest; without a rule, apply the policy it has.

    Kept is what any rule keeps, and what an alias, a tag or a kept version's base needs. A policy that
    would keep nothing is refused. stemmata restore undoes what it deletes.
    """
    from stemmata import retaining
    from stemmata.retention import Policy, seconds_of

    output = output_for(context, as_json)
    policy = Policy.of(last=last, best=best or None, every=every, within=within) or None
    window = None if undo_window is None else seconds_of("--undo-window", undo_window)
    if (show or clear) and (policy or window or (show and clear)):
        raise InvalidArgument(argument="retain", reason="--show and --clear stand alone")
    with open_repo(context, repo) as repository:
        repository.versions(model)  # refuses a model that is not there
        session = repository.session
        if clear:
            if dry_run:
                _tell_policy(output, repository, model)
                output.note("that policy would be taken away; nothing was changed")
                return
            there = retaining.clear(session, model)
            _tell_policy(output, repository, model, "The policy is taken away" if there else "")
            return
        if show or (policy is None and window is not None):
            if window is not None and not dry_run:
                retaining.set_undo_window(session, model, window)
            _tell_policy(output, repository, model)
            return
        found = retaining.simulate(session, model, policy)
        if not output.json and (dry_run or not yes):
            output.show(_table(found, output.width))
        if not dry_run:
            _require_consent(output, found, yes)
            found = retaining.retain(session, model, policy, undo_window=window, why=why, only=found.gone)
        if output.json:
            output.document(_document(repository, found, dry_run))
        elif dry_run:
            output.note(f"{text.count(len(found.gone), 'version')} would be deleted; nothing was changed")
        elif found.gone:
            tell(output, len(found.gone), found.entry)
        else:
            output.note(f"nothing to delete: {text.plain(str(found.policy))}")


def _require_consent(output: Output, found: Retained, yes: bool) -> None:
    if found.gone and not (yes or output.ask(f"Delete {text.count(len(found.gone), 'version')}?")):
        raise typer.Abort


def _settings(repository: Repository, model: str) -> tuple[dict[str, object] | None, int]:
    from stemmata.catalog import queries
    from stemmata.names import name_key
    from stemmata.undo import undo_window

    settings = queries.settings(repository.session.catalog.connection, name_key(model))
    policy = repository.retention(model)
    return policy.to_setting() if policy else None, undo_window(settings)


def _tell_policy(output: Output, repository: Repository, model: str, words: str = "") -> None:
    from stemmata.retention import Policy, length

    policy, window = _settings(repository, model)
    if output.json:
        output.document({"model": model, "policy": policy, "undo_window": window})
        return
    kept = f"keeps {Policy.from_setting(policy)}" if policy else "has no policy: nothing is deleted by itself"
    if words:
        output.show(words)
    output.show(f"{text.plain(model)} {kept}")
    output.show(f"a deletion can be undone for {length(window) if window else 'no time'}")


def _document(repository: Repository, found: Retained, dry_run: bool) -> dict[str, object]:
    rows = [
        {"id": row.id.hex, "name": row.name, "goes": v.goes, "kept": v.kept, "why": v.why}
        for row, v in zip(found.rows, found.verdicts, strict=True)
    ]
    return {
        "model": found.model,
        "policy": found.policy.to_setting(),
        "undo_window": _settings(repository, found.model)[1],
        "dry_run": dry_run,
        "versions": rows,
        "entry": found.entry,
    }


def _table(found: Retained, width: int) -> Text:
    """What goes and what stays, and why."""
    from datetime import UTC, datetime

    from stemmata.cli.listing import DIM, ID, NAME
    from stemmata.cli.tables import Column, table

    now = datetime.now(UTC)
    columns = [Column(""), Column("version", shrink=16), Column("id", 3), Column("age", 2, right=True)]
    columns += [Column("size", 4, right=True), Column("why", 1, shrink=24)]
    for row, verdict in zip(found.rows, found.verdicts, strict=True):
        columns[0].add(*(("goes", "red") if verdict.goes else ("stays", "green")))
        columns[1].add(text.plain(row.name), NAME)
        columns[2].add(row.id.short, ID)
        columns[3].add(text.age(row.created_at, now), DIM)
        columns[4].add(text.size(row.bytes), DIM)
        columns[5].add(text.plain(verdict.why or "; ".join(verdict.kept)))
    return table(columns, width)
