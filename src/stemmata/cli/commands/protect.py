"""`stemmata protect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.gates import Require
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Model, Repo, Why, open_repo, output_for
from stemmata.cli.output import Output
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from stemmata.protecting import Policy

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata protect sentiment production --require 'accuracy >= @production.accuracy - 0.01'",
        "stemmata protect sentiment production",
        'stemmata protect sentiment production --lock --why "frozen for the audit"',
        json="model, name, protected, require (list), why",
    ),
)
def protect(
    context: typer.Context,
    model: Model,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias; it may be new.")],
    require: Require = None,
    lock: Annotated[
        bool, typer.Option("--lock", metavar="", help="No version passes: it moves by force alone.")
    ] = False,
    why: Why = "",
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Let an alias move through a gate alone; without --require, show what it asks.

    From then on promote and alias set ask for what is required here too, and deleting the alias wants
    --force with a reason. A rollback to what the alias has been is always possible. Every change stands in
    stemmata history.
    """
    output = output_for(context, as_json)
    if lock and require:
        raise InvalidArgument(argument="--lock", reason="it stands alone: with --require versions may pass")
    if why and not (require or lock):
        raise InvalidArgument(argument="--why", reason="it goes with --require or --lock")
    with open_repo(context, repo) as repository:
        repository.versions(model)  # refuses a model that is not there
        if require or lock:
            policy: Policy | None = repository.protect(model, name, require or [], why=why)
        else:
            policy = repository.protection(model, name)
        tell_policy(output, model, name, policy)


def tell_policy(output: Output, model: str, name: str, policy: Policy | None) -> None:
    """Say what an alias asks."""
    if output.json:
        asked = list(policy.require) if policy is not None else []
        why = policy.why if policy is not None else ""
        head: dict[str, object] = {"model": model, "name": name, "protected": policy is not None}
        output.document({**head, "require": asked, "why": why})
        return
    shown = f"{text.plain(model)}@{text.plain(name)}"
    if policy is None:
        output.show(f"{shown} is not protected: it moves freely")
    elif not policy.require:
        output.show(f"{shown} is locked: it moves by --force alone, or back")
    else:
        output.show(f"{shown} is protected; it moves to versions of which this holds:")
        for each in policy.require:
            output.show(f"  {text.plain(each)}")
