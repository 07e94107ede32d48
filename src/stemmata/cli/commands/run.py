"""`stemmata run`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import OtherCommand, examples
from stemmata.cli.options import Json, Model, Repo, output_for, repo_folder
from stemmata.cli.output import Output, report_unwritten
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

    from stemmata.attach.launch import Outcome

app = command_app()


@app.command(
    cls=OtherCommand,
    epilog=examples(
        "stemmata run sentiment -- python train.py --lr 2e-4",
        "stemmata run sentiment --every 500 --run-name r8 -- trl sft --config sft.yaml",
        "stemmata run sentiment --run-name r8 --resume --keep best:3 -- python train.py",
        "stemmata run sentiment -R /data/models -- torchrun --nproc-per-node 1 -m mod",
        json="status (the command's exit status; its own output goes to stderr), trainers, runs (list of "
        "name, versions), warnings (list of text)",
    ),
)
def run(
    context: typer.Context,
    model: Model,
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND…", help="The command, as you run it without stemmata."),
    ],
    every: Annotated[
        str,
        typer.Option("--every", metavar="WHEN", help="epoch, save, eval, end or a number of steps."),
    ] = "epoch",
    run_name: Annotated[
        str | None,
        typer.Option("--run-name", metavar="NAME", help="The runs' name. Default: the script's run_name."),
    ] = None,
    keep: Annotated[
        str,
        typer.Option("--keep", metavar="WHICH", help="Mark the others deletable: all, a number or best:N."),
    ] = "all",
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Keep states; go on from the last. Needs --run-name."),
    ] = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Run a training command; each Trainer that it makes saves versions.

    The command is left as it is: its Pythons and those that it starts wait for transformers' Trainer and
    add the callback, unless there is one. Exit status and signals are the command's own; what fails in
    saving is a warning. The repository is made if it is not there.
    """
    from stemmata.attach import launch
    from stemmata.attach.settings import Settings
    from stemmata.names import clean_name
    from stemmata.repository import open as open_repository

    output = output_for(context, as_json)
    name = clean_name(model)
    if run_name is not None:
        run_name = clean_name(run_name)
    elif resume:
        reason = "a command that is started again finds its states by the run's name: give --run-name too"
        raise InvalidArgument(argument="--resume", reason=reason)
    folder = repo_folder(context, repo).absolute()
    # Before hours of training, not after: a folder that is no repository, or not ours to write.
    with open_repository(folder, create=True) as repository:
        repository.session.storage.require_writable()
    settings = Settings(
        str(folder), name, _every(every), run_name, report="", keep=_keep(keep), resume=resume
    )
    outcome = launch.run(command, settings, stdout=sys.stderr.fileno() if output.json else None)
    try:
        _tell(output, outcome, name, folder)
        sys.stdout.flush()
    except OSError as error:
        report_unwritten(error)  # the command's own result counts
    raise typer.Exit(outcome.status)


def _every(given: str) -> str | int:
    from stemmata.attach.settings import EVERY

    if given.isdecimal() and int(given) > 0:
        return int(given)
    if given not in EVERY:
        raise InvalidArgument(argument="--every", reason=f"{given!r} is none of {EVERY} nor a number above 0")
    return given


def _keep(given: str) -> str:
    from stemmata.hf.keeping import Keep

    Keep.parse(given)
    return given


def _tell(output: Output, outcome: Outcome, model: str, folder: Path) -> None:
    versions = {name: _count(folder, model, name) for name in outcome.runs}
    if output.json:
        output.document(
            {
                "status": outcome.status,
                "trainers": outcome.trainers,
                "runs": [{"name": name, "versions": count} for name, count in versions.items()],
                "warnings": outcome.warnings,
            }
        )
    for name, count in versions.items():
        output.note(f"stemmata: {text.plain(f'{model}@{name}')}: {text.count(count, 'version')} in {folder}")
    for words in outcome.warnings:
        output.note(f"stemmata: {text.plain(words)}")
    if not versions:
        output.note(f"stemmata: {_why_none(outcome)}")


def _why_none(outcome: Outcome) -> str:
    if outcome.own:
        return "the Trainers of this command have a VersionCallback of their own; none was added"
    if outcome.trainers:
        return "the command made a Trainer and never trained it: nothing was saved"
    why = "the command made no Trainer of transformers: nothing was saved"
    if outcome.absent:
        return f"{why}; stemmata is missing in its Python ({text.plain(outcome.absent[0])})"
    return f"{why}; if it should have, is its Python started with -I, -E or -S, or PYTHONPATH set anew?"


def _count(folder: Path, model: str, run: str) -> int:
    """The run's versions that are in the repository now, whatever became of the command."""
    from stemmata.errors import StemmataError
    from stemmata.repository import open as open_repository

    try:
        with open_repository(folder) as repository:
            quoted = run.replace("\\", "\\\\").replace('"', '\\"')
            return len(repository.versions(model).where(f'run == "{quoted}"'))
    except (StemmataError, OSError):
        return 0  # moved, or damaged meanwhile: the command's own result counts
