"""`stemmata alias set`, `stemmata alias delete` and `stemmata alias list`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemmata.cli import text
from stemmata.cli.commands.history import label
from stemmata.cli.gates import Force, Reason, show_gate
from stemmata.cli.help import HelpCommand, HelpGroup, examples
from stemmata.cli.options import Json, Model, RefOfModel, Repo, of_model, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import GateFailed

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.moves import Move
    from stemmata.repository import Repository

app = command_app()


@app.callback(
    cls=HelpGroup,
    epilog=examples(
        'stemmata alias set sentiment production @r8/epoch-3 --why "passed the gate"',
        "stemmata alias list sentiment",
        "stemmata alias delete sentiment prodution",
    ),
)
def alias() -> None:
    """Set, list or delete aliases, names that move.

    Every move is kept: see stemmata history, undo with stemmata rollback.
    """


@app.command(
    "set",
    cls=HelpCommand,
    epilog=examples(
        'stemmata alias set sentiment production @r8/epoch-3 --why "passed the gate"',
        "stemmata alias set sentiment production sentiment@best --expect @r4/epoch-3",
        json="model, name, from (id or null), to (id), at, by, why, rollback, evidence",
    ),
)
def set_alias(
    context: typer.Context,
    model: Model,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The alias.")],
    reference: RefOfModel,
    why: Reason = "",
    expect: Annotated[
        str | None,
        typer.Option(
            "--expect", metavar="REF", help="Move it only if it points there now; 'none' if it is new."
        ),
    ] = None,
    force: Force = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Point an alias at a version; made if it is new.

    A protected alias moves only if its gate lets the version pass: see stemmata protect.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        target = of_model(model, reference)
        arguments: dict[str, Any] = {}
        if expect is not None:
            arguments["expect"] = None if expect == "none" else of_model(model, expect)
        try:
            move = repository.alias(model, name, target, why=why, force=force, **arguments)
        except GateFailed as error:
            show_gate(output, error.data["evidence"])
            raise
        tell_move(output, repository, move)


def tell_move(output: Output, repository: Repository, move: Move) -> None:
    """Say where an alias went."""
    if output.json:
        from stemmata.cli.commands.history import document

        output.document({"model": move.model, "name": move.name, **document(move)})
        return
    from stemmata.cli.listing import ALIAS, DIM, ID, NAME
    from stemmata.cli.styled import Text

    line = Text().append(f"{text.plain(move.model)}@", DIM)
    line.append(text.plain(move.name), ALIAS)
    if move.before is not None:
        line.append(f"  {label(repository, move.before)} {move.before.short}", DIM)
    line.append("  ↩  " if move.rollback else "  →  ", "yellow" if move.rollback else "green")
    line.append(label(repository, move.after), NAME)
    if move.after is not None:
        line.append(f" {move.after.short}", ID)
    output.show(line)
    if move.before == move.after:
        output.note("it was there already")
    elif move.before is not None and move.after is None:
        words = f"{text.plain(move.model)} {text.plain(move.name)} {move.before.short}"
        output.note(f"make it again with: stemmata alias set {words}")
    elif move.before is not None and not move.rollback:
        output.note(f"undo with: stemmata rollback {text.plain(move.model)} {text.plain(move.name)}")


@app.command(
    "delete",
    cls=HelpCommand,
    epilog=examples(
        "stemmata alias delete sentiment prodution --why 'a slip of the pen'",
        "stemmata alias delete sentiment canary --force --why 'no longer served'",
        json="model, name, from (id), to (null), at, by, why, rollback, evidence",
    ),
)
def delete_alias(
    context: typer.Context,
    model: Model,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The alias.")],
    why: Reason = "",
    force: Force = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Delete an alias; the version and the alias's history stay.

    A protected alias goes only by --force, with a reason. stemmata history shows what it was.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        move = repository.unalias(model, name, why=why, force=force)
        tell_move(output, repository, move)


@app.command(
    "list",
    cls=HelpCommand,
    epilog=examples(
        "stemmata alias list",
        "stemmata alias list sentiment",
        json="aliases (list of model, name, id, version, moved_at, by, why)",
    ),
)
def list_aliases(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this model's aliases.")] = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """List aliases and where they point."""
    from stemmata.cli.listing import ALIAS, DIM, ID, NAME
    from stemmata.cli.tables import Column, table

    output = output_for(context, as_json)
    now = datetime.now(UTC)
    with open_repo(context, repo) as repository:
        columns = [Column("model", 3), Column("alias"), Column("version", shrink=12), Column("id", 2)]
        columns += [Column("moved", 1, right=True), Column("by", 4), Column("why", 1, shrink=10)]
        documents = []
        for each in [model] if model is not None else repository.models():
            for name, version in repository.aliases(each).items():
                move = repository.history(each, name)[-1]
                columns[0].add(text.plain(version.model), DIM)
                columns[1].add(text.plain(name), ALIAS)
                columns[2].add(text.plain(version.name), NAME)
                columns[3].add(version.short, ID)
                columns[4].add(text.age(move.at, now), DIM)
                columns[5].add(text.plain(move.by))
                columns[6].add(text.plain(move.why))
                documents.append(
                    {
                        "model": version.model,
                        "name": name,
                        "id": version.id.hex,
                        "version": version.name,
                        "moved_at": move.at,
                        "by": move.by,
                        "why": move.why,
                    }
                )
        if output.json:
            output.document({"aliases": documents})
        elif documents:
            output.show(table(columns, output.width))
        else:
            output.note("no aliases yet; make one with: stemmata alias set MODEL NAME REF")
