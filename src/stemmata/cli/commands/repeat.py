"""`stemmata repeat`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.arguments import seconds_of
from stemmata.cli.help import HelpCommand, examples, sections
from stemmata.cli.options import DryRun, Json, Ref, Repo, open_repo, output_for, pairs
from stemmata.cli.registry import command_app
from stemmata.cli.remaking import Arg, Base, Code, Keep, Link, Timeout, Work

app = command_app()
_UNFINISHED = 1
_STATUSES = """
0  the command ended well, and its versions are saved
1  it ended with an error or was ended; versions that it made are saved
4  it cannot be run, or made no version
"""


@app.command(
    cls=HelpCommand,
    epilog=sections(Exit_status=_STATUSES)
    + "\f"
    + examples(
        "stemmata repeat sentiment@r8/final --set learning_rate=1e-5",
        "stemmata repeat sentiment@r8/final --set seed=7 --set num_train_epochs=5",
        "stemmata repeat sentiment@r8/final --set seed=7 --dry-run",
        json="repeats, changed, versions (lists of id, model, name), status, seconds, notes, work. With "
        "--dry-run: as reproduce",
    ),
)
def repeat(
    context: typer.Context,
    reference: Ref,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A training argument, or an option of the command, with its new value. May be given again.",
        ),
    ] = None,
    timeout: Timeout = None,
    work: Work = None,
    keep: Keep = False,
    code: Code = None,
    base: Base = None,
    link: Link = None,
    arg: Arg = None,
    dry_run: DryRun = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Run a version's command again with other training arguments, as a fork.

    As reproduce does it, but the versions are saved into this repository, as a run of their own. Each is
    labelled with the version that it repeats, and with what was changed. Aliases, tags and settings that the
    command would change stay as they are: it is refused them.
    """
    from stemmata.cli import remaking

    output = output_for(context, as_json)
    wanted = {"code": code, "base": base, "link": link or (), "work": work}
    given, values = pairs(arg, "--arg"), pairs(changes, "--set")
    seconds_of("--timeout", timeout)
    with open_repo(context, repo) as repository:
        if dry_run:
            plan = repository.plan_reproduction(
                reference,
                arguments=given,
                changes=values,
                **wanted,  # type: ignore[arg-type]
            )
            remaking.tell_plan(output, plan)
            return
        made = repository.repeat(
            reference,
            values,
            timeout=timeout,
            keep=keep,
            arguments=given,
            told=remaking.stages(output),
            output=remaking.passing_on,
            **wanted,  # type: ignore[arg-type]
        )
        if output.json:
            output.document(made.to_dict())
        else:
            remaking.tell_repeated(output, made)
    if made.status != 0:
        raise typer.Exit(_UNFINISHED)
