"""`stemmata watch`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Model, Repo, TakeIn, a_path, open_repo, output_for
from stemmata.cli.output import Output
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from stemmata.errors import StemmataError
    from stemmata.intake import Outcome

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata watch out sentiment",
        "stemmata watch out sentiment --run r8 --interval 30 --until-idle 3600",
        "stemmata watch out sentiment --once",
        json="versions (as in import, with what is incomplete at the end)",
    ),
)
def watch(
    context: typer.Context,
    folder: Annotated[
        str,
        typer.Argument(metavar="OUTPUT_DIR", help="Where a training writes; may not be there yet."),
    ],
    model: Model,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="The run. Default: the folder's name.")
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.05, help="The time between two looks.")
    ] = 5.0,
    until_idle: Annotated[
        float | None,
        typer.Option("--until-idle", metavar="SECONDS", min=0.0, help="Stop when nothing moved for so long."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", metavar="", help="Take in what is finished now, and stop.")
    ] = False,
    include: TakeIn = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Take in each checkpoint and final save while another program trains.

    A checkpoint-N is taken once it is complete and was the same at two looks, so one that is being written or
    deleted is no version. What the repository has is not taken again: a watcher may be stopped, started again
    and doubled. It ends upon Ctrl-C or SIGTERM, after what it is just saving.
    """
    from stemmata.cli.commands.import_ import document
    from stemmata.intake import Watcher
    from stemmata.names import clean_name

    output = output_for(context, as_json)
    trained = a_path(folder, "OUTPUT_DIR")
    if trained.is_file():
        raise InvalidArgument(argument="OUTPUT_DIR", reason=f"{folder} is a file; name the training's folder")
    told: list[Outcome] = []
    if not trained.is_dir():
        swapped = Path(model).is_dir()
        hint = f"; is it stemmata watch {model} {folder}?" if swapped else ""
        output.note(text.plain(f"{folder} is not there yet; what a training writes there is taken in{hint}"))

    def tell(outcome: Outcome) -> None:
        told.append(outcome)
        if not output.json:
            _line(output, outcome)

    with open_repo(context, repo) as repository, _until_signal() as stop:
        watcher = Watcher(
            repository,
            trained,
            clean_name(model),
            run=clean_name(run) if run is not None else None,
            include=include or (),
            tell=tell,
        )
        pause = min(interval, threading.TIMEOUT_MAX)
        watcher.follow(interval=pause, idle=until_idle, once=once, stopped=stop.is_set, sleep=stop.wait)
        for outcome in watcher.unfinished():
            tell(outcome)
    if not told:
        output.note(f"nothing was taken in: no checkpoint and no final save came into {text.plain(folder)}")
    if output.json:
        output.document({"versions": [document(outcome) for outcome in told]})
    failed = _failed(told, once=once)
    if failed is not None:
        raise typer.Exit(failed.exit_code)


def _failed(told: list[Outcome], *, once: bool) -> StemmataError | None:
    """What a watch ends with: what failed last of its folder was not mended by a later look.

    While a training goes on a failure is a warning, as long as anything was kept.
    """
    last = {outcome.found.path: outcome for outcome in told}
    kept = any(outcome.version is not None for outcome in told)
    if kept and not once:
        return None
    return next((outcome.error for outcome in last.values() if outcome.error is not None), None)


def _line(output: Output, outcome: Outcome) -> None:
    from stemmata.cli.listing import ID, NAME
    from stemmata.cli.styled import Text
    from stemmata.cli.words import MEANINGS

    found = outcome.found
    if outcome.version is None:
        output.note(
            f"{text.plain(str(found.path))}: {MEANINGS[outcome.status]}: {text.plain(outcome.reason)}"
        )
        return
    line = Text(text.plain(f"{found.model}@{found.name}"), NAME)
    line.append(f"  {outcome.version.short}", ID)
    line.append(f"  {MEANINGS[outcome.status]}")
    for key, value in list(found.metrics.items())[:3]:
        line.append(f"  {text.plain(key)}={text.number(value)}")
    output.show(line)
    if found.warning:
        output.note(f"{text.plain(str(found.path))}: {text.plain(found.warning)}")


@contextmanager
def _until_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of ending the process in the middle."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals are the main thread's alone
        return
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
