"""`stemmata reproduce`."""

from __future__ import annotations

from typing import Annotated

import typer

from stemmata.arguments import seconds_of
from stemmata.cli.help import HelpCommand, examples, sections
from stemmata.cli.options import DryRun, Json, Ref, Repo, Why, open_repo, output_for, pairs
from stemmata.cli.registry import command_app
from stemmata.cli.remaking import Arg, Base, Code, Keep, Link, Timeout, Work

app = command_app()
_DIVERGED = 1
_STATUSES = """
0  it was reproduced: bit-identical, within the tolerance, all losses equal
1  it diverged, or nothing could be compared
4  it cannot be run, or the command ended without making the version
"""


@app.command(
    cls=HelpCommand,
    epilog=sections(Exit_status=_STATUSES)
    + "\f"
    + examples(
        "stemmata reproduce sentiment@production --dry-run",
        "stemmata reproduce sentiment@production",
        "stemmata reproduce sentiment@r8/final --steps 20 --timeout 600",
        "stemmata reproduce sentiment@r8/final --code ~/clones/sentiment --keep",
        json="verdict (bit-identical, within-tolerance, diverged, losses-agree, undecided), reproduced, "
        "original, again, steps, first_step, losses, weights, files, causes, cause_unknown, did_not_matter, "
        "notes, missing, status, seconds, work. With --dry-run: command, folder, variables, items (what, "
        "how), copied, missing, blocked (lists of what, why), environment, reach",
    ),
)
def reproduce(
    context: typer.Context,
    reference: Ref,
    steps: Annotated[
        int | None,
        typer.Option("--steps", metavar="N", help="Run and judge a Trainer's first N steps only."),
    ] = None,
    timeout: Timeout = None,
    work: Work = None,
    keep: Keep = False,
    code: Code = None,
    base: Base = None,
    link: Link = None,
    arg: Arg = None,
    rtol: Annotated[
        float | None, typer.Option("--rtol", metavar="X", help="The relative tolerance of all floats.")
    ] = None,
    atol: Annotated[
        float | None, typer.Option("--atol", metavar="X", help="The absolute tolerance of all floats.")
    ] = None,
    why: Why = "",
    dry_run: DryRun = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Make a version's run again, as it was captured, and judge whether it is the same.

    In a work folder: code from the commit and the captured files, the base model, what lay beside the code.
    Then the recorded command is run: code of whoever saved that version. Its versions go to a repository in
    the work folder, never to yours; the verdict is kept with the version. Nothing is installed.
    """
    from stemmata.cli import remaking

    output = output_for(context, as_json)
    wanted = {"steps": steps, "code": code, "base": base, "link": link or (), "work": work}
    given = pairs(arg, "--arg")
    seconds_of("--timeout", timeout)
    with open_repo(context, repo) as repository:
        if dry_run:
            plan = repository.plan_reproduction(reference, arguments=given, **wanted)  # type: ignore[arg-type]
            remaking.tell_plan(output, plan)
            return
        made = repository.reproduce(
            reference,
            timeout=timeout,
            keep=keep,
            arguments=given,
            rtol=rtol,
            atol=atol,
            why=why,
            told=remaking.stages(output),
            output=remaking.passing_on,
            **wanted,  # type: ignore[arg-type]
        )
    if output.json:
        output.document(made.to_dict())
    else:
        remaking.tell_verdict(output, made)
    if not made.verdict:
        raise typer.Exit(_DIVERGED)
