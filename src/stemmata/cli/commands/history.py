"""`stemmata history`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Model, Repo, open_repo, output_for
from stemmata.cli.output import Output
from stemmata.cli.registry import command_app
from stemmata.errors import NotFound, VersionNotFound
from stemmata.ids import VersionId

if TYPE_CHECKING:
    from stemmata.moves import Move
    from stemmata.repository import Repository

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata history sentiment production",
        json="model, name, moves (list, oldest first: at, by, from, to, why, rollback; from and to are "
        "ids or null)",
    ),
)
def history(
    context: typer.Context,
    model: Model,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The alias.")],
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Show who moved an alias, when and why.

    Newest first. What it pointed at then can be read back: stemmata show 'MODEL@NAME@{3 weeks ago}'.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        moves = repository.history(model, name)
        if not moves:
            raise no_such_alias(model, name)
        if output.json:
            output.document({"model": model, "name": name, "moves": [document(m) for m in moves]})
            return
        _tell(output, repository, moves)


def no_such_alias(model: str, name: str) -> VersionNotFound:
    """The error for a name that never was an alias."""
    hint = f"stemmata alias list {model} lists the aliases"
    return VersionNotFound(reference=f"{model}@{name}", reason="no alias of that name ever was", hint=hint)


def document(move: Move) -> dict[str, object]:
    """One move as JSON shows it."""
    return {
        "at": move.at,
        "by": move.by,
        "from": move.before.hex if move.before else None,
        "to": move.after.hex if move.after else None,
        "why": move.why,
        "rollback": move.rollback,
    }


def label(repository: Repository, version: VersionId | None) -> str:
    """The version's name, or its id where it is gone."""
    if version is None:
        return "nothing"
    try:
        return text.plain(repository.get(version).name)
    except NotFound:
        return f"{version.short} (gone)"


def _tell(output: Output, repository: Repository, moves: list[Move]) -> None:
    from stemmata.cli.listing import DIM, ID, NAME
    from stemmata.cli.styled import Text
    from stemmata.cli.tables import Column, table

    columns = [Column("when"), Column("who", 4, shrink=8), Column("from", 3, shrink=16), Column("")]
    columns += [Column("to", shrink=16), Column("id", 2), Column("why", 1, shrink=20)]
    for move in reversed(moves):
        columns[0].add(text.local(move.at), DIM)
        columns[1].add(text.plain(move.by))
        columns[2].add(label(repository, move.before), DIM)
        columns[3].add("↩" if move.rollback else "→", "yellow" if move.rollback else "green")
        columns[4].add(label(repository, move.after), NAME)
        columns[5].add(move.after.short if move.after else "", ID)
        why = Text().append("rollback" if move.rollback else "", "yellow")
        if move.why:
            why.append(f"{': ' if why else ''}{text.plain(move.why)}")
        columns[6].add(why)
    output.show(table(columns, output.width))
