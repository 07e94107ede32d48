"""`stemmata promote`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemmata.cli.commands.alias import tell_move
from stemmata.cli.commands.history import document
from stemmata.cli.gates import Force, Reason, Require, readable, show_gate
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import DryRun, Json, Ref, Repo, of_model, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import AliasMoved, GateFailed

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.repository import Repository
    from stemmata.version import Version

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
        if dry_run:
            if expect is not None:
                _require_there(repository, version.model, name, expect)
            _judge(output, repository, version, name, require or [])
            return
        arguments: dict[str, Any] = {}
        if expect is not None:
            arguments["expect"] = None if expect == "none" else of_model(version.model, expect)
        try:
            move = repository.promote(version, name, require=require or [], why=why, force=force, **arguments)
        except GateFailed as error:
            show_gate(output, error.data["evidence"])
            raise
        gate = move.evidence.get("gate")
        if output.json:
            head = {"model": move.model, "name": move.name, **document(move)}
            output.document({**head, "dry_run": False, "gate": readable(gate)})
            return
        show_gate(output, gate)
        tell_move(output, repository, move)


def _require_there(repository: Repository, model: str, name: str, expect: str) -> None:
    """Raise AliasMoved as a promotion would."""
    assumed = None if expect == "none" else repository.get(of_model(model, expect))
    here = {alias.lower(): version for alias, version in repository.aliases(model).items()}.get(name.lower())
    if here != assumed:
        found, wanted = (each.short if each is not None else "no version" for each in (here, assumed))
        raise AliasMoved(model=model, name=name, found=found, expected=wanted)


def _judge(output: Output, repository: Repository, version: Version, name: str, require: list[str]) -> None:
    """Show what would come of it. Raises GateFailed as a promotion would."""
    from stemmata.moves import gate_failed

    verdict = repository.gate(version, name, require)
    if not verdict.passed:
        show_gate(output, verdict.to_dict())
        raise gate_failed(repository.session.catalog, verdict, version.model, name)
    if output.json:
        here = {alias.lower(): v.id.hex for alias, v in repository.aliases(version.model).items()}
        head = {"model": version.model, "name": name, "from": here.get(name.lower()), "to": version.id.hex}
        output.document({**head, "dry_run": True, "gate": readable(verdict.to_dict())})
        return
    show_gate(output, verdict.to_dict())
    output.note("it would pass; nothing was moved")
