"""The entry point: parses the command line, runs one command, turns failures into exit codes."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from stemmata import __version__
from stemmata.cli.help import sections
from stemmata.cli.options import Json, Repo, Session
from stemmata.cli.output import (
    Output,
    Unwritten,
    error_document,
    report_error,
    report_failure,
    report_unwritten,
)
from stemmata.cli.registry import COMMANDS, HELP_NAMES, LazyGroup
from stemmata.errors import StemmataError, StorageFailed

INTERRUPTED = 130
BROKEN_PIPE = 141
_VALIDATION = re.compile(
    r"Input should be (a valid integer|a valid number|greater than or equal to)(?:, [^,]+)?"
)
_SAID = {
    "a valid integer": "this is no whole number",
    "a valid number": "this is no number",
    "greater than or equal to": "it must be at least",
}

_EPILOG = sections(
    Examples="""
$ stemmata init
$ stemmata save out/ sentiment -m "r=8, lower rate" --metric eval_loss=0.41
$ stemmata log sentiment
$ stemmata diff sentiment@r4/epoch-3 sentiment@r8/epoch-3
$ stemmata checkout sentiment@production -o model/
""",
    References="""
model@selector, then ~N for the N-th parent, @{1} for an alias's previous
value, @{3 weeks ago} for what it was then. A selector is an alias, a tag, a
version name, latest, best, run/latest or run/best; without one it is latest.
An id's first 4 digits or more also do.
""",
    Exit_codes="""
0 done             1 failed           2 not understood
3 not found        4 conflict         5 damage found
6 storage failed   7 newer format     8 refused for safety
130 interrupted    141 pipe closed
""",
    Environment="""
STEMMATA_REPO   the repository, where --repo is not given
STEMMATA_CACHE  where caches go that have no place in the repository
STEMMATA_CACHE_SIZE  most bytes of cached checkouts, such as 50GB; the oldest go
STEMMATA_DEBUG  1 shows where an error came from
NO_COLOR        no colours
""",
)

app = typer.Typer(
    cls=LazyGroup,
    name="stemmata",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=HELP_NAMES,
    epilog=_EPILOG,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"stemmata {__version__}\n")
        raise typer.Exit


@app.callback()
def stemmata(
    context: typer.Context,
    repo: Repo = None,
    as_json: Json = False,
    up_to_damage: Annotated[
        bool,
        typer.Option(
            "--up-to-damage",
            metavar="",
            help="Read a repository whose log is damaged as it stood before the damage; nothing is written.",
        ),
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback has done all
        bool,
        typer.Option(
            "--version",
            metavar="",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """The version store for fine-tuned models: every epoch can be loaded, compared and brought back."""
    context.obj = Session(repo, as_json, up_to_damage)


def main() -> None:
    """Run the command line of this process and exit with its code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Closed by whoever started us, as a service manager may: what is said goes nowhere.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # A name in any script must not end a command on a terminal that cannot show it.
            reconfigure(errors="replace")
    code = run(sys.argv[1:])
    # What is alive goes with the process: to look for garbage in it took an eighth of `stemmata log`.
    gc.freeze()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing is raised."""
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    output = Output(json="--json" in ours)
    try:
        code = _invoke(list(arguments), output)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        report_failure("interrupted", "what was not finished was not made visible")
        return INTERRUPTED
    except OSError as error:
        left = isinstance(error, BrokenPipeError)
        if _debug() and not left:
            raise
        report_unwritten(error)
        return BROKEN_PIPE if left else StorageFailed.exit_code
    except SystemExit as stop:
        # What prints for us ends the process itself when the reader has left.
        if isinstance(stop.__context__, BrokenPipeError):
            report_unwritten(stop.__context__)
            return BROKEN_PIPE
        raise


def _debug() -> bool:
    return os.environ.get("STEMMATA_DEBUG", "") not in ("", "0")


def _invoke(arguments: list[str], output: Output) -> int:
    debug = _debug()
    command = typer.main.get_command(app)
    try:
        result = command.main(arguments, prog_name="stemmata", standalone_mode=False)
        if result == INTERRUPTED:
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except StemmataError as error:
        if debug:
            raise
        report_error(output, error, _help_of(arguments))
        return error.exit_code
    except typer.Abort:
        report_failure("stopped", "nothing was done")
        return 1
    except (BrokenPipeError, Unwritten, KeyboardInterrupt):
        raise
    except Exception as error:
        if debug:
            raise
        return _report_other(output, error)


def _help_of(arguments: Sequence[str]) -> str:
    """Where the help of a command line's command is."""
    named = next((word for word in arguments if word in COMMANDS), None)
    return f"stemmata {named} --help" if named else "stemmata --help"


def _report_other(output: Output, error: Exception) -> int:
    """Failures that are no StemmataError: the parser's, the system's, and our own mistakes."""
    message = getattr(error, "format_message", None)
    if message is not None:
        return _report_usage(output, error, str(message()))
    if isinstance(error, OSError):
        what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        kind, code, step = "system", 6, "look at the file or folder, then try again"
    else:
        what = f"unexpected: {type(error).__name__}: {error}"
        kind, code, step = "bug", 1, "set STEMMATA_DEBUG=1 to see where, and report it"
    if output.json:
        output.document(error_document(kind, what, {}))
    report_failure(what, "", step)
    return code


def _report_usage(output: Output, error: Any, message: str) -> int:
    """A command line that the parser refuses; a bare `stemmata` asks for help and gets it."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        return 2
    if output.json:
        output.document(error_document("usage", message, {}))
    path = context.command_path if context is not None else "stemmata"
    # The validation library's words are for programmers.
    message = _VALIDATION.sub(lambda found: _SAID[found[1]], message)
    report_failure(message, "", f"{path} --help")
    return int(getattr(error, "exit_code", 2))


if __name__ == "__main__":
    main()
