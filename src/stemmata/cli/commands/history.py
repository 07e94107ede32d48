"""`stemmata history`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.gates import gate_table, readable
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Model, Repo, open_repo, output_for
from stemmata.cli.output import Output
from stemmata.cli.registry import command_app
from stemmata.errors import NotFound, VersionNotFound
from stemmata.ids import VersionId

if TYPE_CHECKING:
    from stemmata.cli.styled import Text
    from stemmata.moves import Move
    from stemmata.protecting import Protection
    from stemmata.repository import Repository

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata history sentiment production",
        json="model, name, moves (list, oldest first: at, by, from, to, why, rollback, evidence (action, "
        "gate; or empty); from and to are ids or null), protections (list, oldest first: at, by, "
        "protected, require, why)",
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

    Newest first, with the gate that each move has passed, or was forced past, and who changed what the
    alias asks. What it pointed at then can be read back: stemmata show 'MODEL@NAME@{3 weeks ago}'.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        moves = repository.history(model, name)
        protections = repository.protections(model, name)
        if not moves and not protections:
            raise no_such_alias(model, name)
        if output.json:
            told = [_protection(p) for p in protections]
            moved = [document(m) for m in moves]
            last = (moves or protections)[-1]  # as they are written, whatever was typed
            output.document({"model": last.model, "name": last.name, "moves": moved, "protections": told})
            return
        _tell(output, repository, moves, protections)


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
        "evidence": readable(move.evidence),
    }


def _protection(change: Protection) -> dict[str, object]:
    return {
        "at": change.at,
        "by": change.by,
        "protected": change.policy is not None,
        "require": list(change.policy.require) if change.policy is not None else [],
        "why": change.why,
    }


def label(repository: Repository, version: VersionId | None) -> str:
    """The version's name, or its id where it is gone."""
    if version is None:
        return "nothing"
    try:
        return text.plain(repository.get(version).name)
    except NotFound:
        return f"{version.short} (gone)"


def _tell(output: Output, repository: Repository, moves: list[Move], protections: list[Protection]) -> None:
    from stemmata.cli.listing import DIM, ID, NAME
    from stemmata.cli.styled import Text
    from stemmata.cli.tables import Column, table
    from stemmata.moves import Move

    columns = [Column("when"), Column("who", 4, shrink=8), Column("from", 3, shrink=16), Column("")]
    columns += [Column("to", shrink=16), Column("id", 2), Column("why", 1, shrink=20)]
    # Both are in the order of the log, whose times never run backwards.
    both: list[Move | Protection] = [*protections, *moves]
    events = sorted(both, key=lambda e: e.at, reverse=True)
    for event in events:
        columns[0].add(text.local(event.at), DIM)
        columns[1].add(text.plain(event.by))
        if isinstance(event, Move):
            columns[2].add(label(repository, event.before), DIM)
            columns[3].add("↩" if event.rollback else "→", "yellow" if event.rollback else "green")
            columns[4].add(label(repository, event.after), NAME)
            columns[5].add(event.after.short if event.after else "", ID)
            columns[6].add(_reason(event))
        else:
            words = "no longer protected" if event.policy is None else "protected"
            for column, cell in zip(columns[2:6], ("", "▪", words, ""), strict=True):
                column.add(cell, "cyan")
            asked = "" if event.policy is None else ", ".join(event.policy.require) or "no version passes"
            columns[6].add(text.plain(": ".join(part for part in (event.why, asked) if part)))
    output.show(table(columns, output.width))
    for move in reversed(moves):
        gate = move.evidence.get("gate")
        found = gate_table(gate, output.width, indent=2) if isinstance(gate, dict) else None
        if found is not None:
            head = Text().append(text.local(move.at), DIM)
            head.append(f"  gate of {label(repository, move.after)}", NAME)
            output.show("", head, found)


def _reason(move: Move) -> Text:
    from stemmata.cli.styled import Text

    action = str(move.evidence.get("action") or "")
    words = {"rollback": "rollback", "forced": "forced", "promote": "passed"}.get(action, "")
    why = Text().append(words, "green" if action == "promote" else "yellow")
    if move.why:
        why.append(f"{': ' if why else ''}{text.plain(move.why)}")
    return why
