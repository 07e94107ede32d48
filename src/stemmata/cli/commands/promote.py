"""`stemmata promote`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stemmata.cli.commands.alias import tell_move
from stemmata.cli.commands.history import document
from stemmata.cli.gates import Force, Reason, Require, readable, show_gate
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import DryRun, Json, Ref, Repo, of_model, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import GateFailed

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata promote sentiment@r8/epoch-3 production --require 'eval_loss < 0.5'",
        "stemmata promote sentiment@best production --require 'accuracy >= @production.accuracy - 0.01'",
        "stemmata promote sentiment@best production --require 'eval_loss <= 1.02 * @production.eval_loss'",
        "stemmata promote sentiment@best production --require 'f1 > 0.8' --dry-run",
        'stemmata promote sentiment@r4/final production --force --reason "the gate\'s dataset is broken"',
        json="model, name, from (id or null), to (id), dry_run, gate (version, passed, compared_with, "
        "requirements (list of expression, policy, passed, comparisons, reason); or null); but for a dry run "
        "at, by, why, rollback, evidence. A gate that fails is error.data.evidence",
    ),
)
def promote(
    context: typer.Context,
    reference: Ref,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias, such as production.")],
    require: Require = None,
    why: Reason = "",
    expect: Annotated[
        str | None,
        typer.Option(
            "--expect", metavar="REF", help="Move it only if it points there now; 'none' if it is new."
        ),
    ] = None,
    force: Force = False,
    dry_run: DryRun = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Point an alias at a version if a gate lets it pass.

    Everything that is required must hold, and what the alias itself asks for (stemmata protect). What is
    missing, NaN or measured on another dataset fails. Nothing moves then, and the exit code is 8. The
    gate as judged is kept in the alias's history.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        version = repository.get(reference)
        arguments: dict[str, Any] = {"require": require or [], "force": force, "dry_run": dry_run}
        if expect is not None:
            arguments["expect"] = None if expect == "none" else of_model(version.model, expect)
        try:
            move = repository.promote(version, name, why=why, **arguments)
        except GateFailed as error:
            show_gate(output, error.data["evidence"])
            raise
        gate = move.evidence.get("gate")
        if output.json:
            told = document(move)
            if dry_run:
                told = {key: told[key] for key in ("from", "to")}
            head = {"model": move.model, "name": move.name, **told}
            output.document({**head, "dry_run": dry_run, "gate": readable(gate)})
            return
        show_gate(output, gate)
        if dry_run:
            how = "would be forced" if force else "would pass"
            output.note(f"it {how}; nothing was moved")
        else:
            tell_move(output, repository, move)
