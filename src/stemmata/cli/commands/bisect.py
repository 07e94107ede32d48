"""`stemmata bisect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.gates import Require
from stemmata.cli.help import OtherCommand, examples, sections
from stemmata.cli.options import Json, Repo, of_model, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.histories.bisection import Trial
    from stemmata.repository import Repository

app = command_app()
_UNTOLD = 1

_STATUSES = """
0          good
1 to 127   bad, but for
125        the version cannot be tested: another one is tried
126, 127   by these a shell says that it cannot run the command: if no other
           status has been seen, the good version is asked first
others     end the search; what was judged stays, and the same command line
           goes on
"""
_FOUND = """
{}                  in the command: the folder of the version's files,
                    verified, read-only
STEMMATA_PATH       the same, in its environment
STEMMATA_VERSION    the version's id
STEMMATA_REFERENCE  its name: model@run/epoch-3
STEMMATA_REPO       the repository
"""


@app.command(
    cls=OtherCommand,
    epilog=sections(Exit_status_of_COMMAND=_STATUSES, What_COMMAND_finds=_FOUND)
    + "\f"
    + examples(
        "stemmata bisect sentiment@v1 sentiment@latest -- python eval.py {}",
        "stemmata bisect sentiment@v1 sentiment@latest --timeout 600 -- ./test.sh",
        "stemmata bisect sentiment@r8/epoch-2 @r8/epoch-9 --require 'eval_loss < 0.5'",
        "stemmata bisect sentiment --log",
        json="first_bad (null: it cannot be told), last_good, suspects, line (lists of: id, model, name, "
        "created_at, metrics, verdict: good, bad, skip or null; reason, seconds, ran, before: by an earlier "
        "call), evaluations, reused, skipped, turns. With --log: bisection (good, bad, good_name, bad_name, "
        "command, require, asked, by, run, judged, done; or null)",
    ),
)
def bisect(
    context: typer.Context,
    good: Annotated[
        str, typer.Argument(metavar="GOOD", help="A version that is good; with --log the model.")
    ],
    bad: Annotated[
        str | None,
        typer.Argument(metavar="BAD", help="One that came from it and is bad; @name: of the same model."),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND…", help="What tells whether a version is good."),
    ] = None,
    require: Require = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", help="End a command that takes longer, and all that it started."
        ),
    ] = None,
    timeout_is: Annotated[
        str, typer.Option("--timeout-is", metavar="skip|bad", help="What such a version counts as.")
    ] = "skip",
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="parents|time",
            help="The order: what came from what, or when the model's versions were saved.",
        ),
    ] = "parents",
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="With --by time: only this run's versions.")
    ] = None,
    check_ends: Annotated[
        bool, typer.Option("--check-ends", help="Evaluate GOOD and BAD first: are they as said?")
    ] = False,
    no_checkout: Annotated[
        bool, typer.Option("--no-checkout", metavar="", help="Make no files: the command loads by itself.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget what was judged before, and begin anew.")
    ] = False,
    log: Annotated[bool, typer.Option("--log", help="Show what was judged so far, and run nothing.")] = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Find the version that broke it, by binary search with a command.

    Of 64 versions that came from GOOD up to BAD, 6 are evaluated. GOOD and BAD are taken as said. Each
    verdict is kept at once: after Ctrl-C, a crash or a kill the same command line goes on where it was.

    With --require a version is good if that holds of its metrics, and no command is needed. Where a metric is
    missing the command is run, if there is one; it may add it with stemmata annotate.
    """
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        if log:
            _tell_log(output, repository, good)
            return
        if bad is None or not (command or require):
            reason = "name a good version and a bad one, then -- and the command, or what to --require"
            raise InvalidArgument(argument="bisect", reason=reason)
        first = repository.get(good)
        told = _Told(output)
        try:
            found = repository.bisect(
                first,
                of_model(first.model, bad),
                command or None,
                require=require or (),
                timeout=timeout,
                timeout_is=timeout_is,  # type: ignore[arg-type]
                by=by,  # type: ignore[arg-type]
                run=run,
                check_ends=check_ends,
                checkout=not no_checkout,
                restart=restart,
                told=told,
            )
        except (KeyboardInterrupt, SystemExit):
            if command:
                output.note("\nstopped; what was judged is kept, the same command line goes on")
            raise
        if output.json:
            output.document(found.to_dict())
        else:
            from stemmata.cli.bisections import tell

            tell(output, found, repository)
    if found.first_bad is None:
        raise typer.Exit(_UNTOLD)


class _Told:
    """Says on stderr which version is judged, and what was found."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._begun = False

    def __call__(self, trial: Trial) -> None:
        point = trial.point
        if trial.opinion is None:
            if not self._begun:
                self._begun = True
                kept = f"{text.count(trial.number - 1, 'verdict')} kept; " if trial.number > 1 else ""
                versions = text.count(trial.suspects, "version")
                self._output.note(f"{kept}{versions} can be the first bad one")
            about = trial.number + trial.steps_left
            name = text.plain(f"{point.model}@{point.name}")
            self._output.note(f"[{trial.number}/{about}] {name}  {point.id.short}")
            return
        opinion = trial.opinion
        words: list[str] = [opinion.verdict]
        if opinion.reason:
            words.append(text.plain(opinion.reason))
        if opinion.ran:
            words.append(text.duration(opinion.seconds))
        self._output.note(f"      {': '.join(words[:2])}{', ' if words[2:] else ''}{''.join(words[2:])}")


def _tell_log(output: Output, repository: Repository, model: str) -> None:
    kept = repository.bisection(model)
    if output.json:
        output.document({"bisection": kept.to_dict() if kept is not None else None})
        return
    if kept is None:
        output.note(f"no bisection of {text.plain(model)} is kept")
        return
    from stemmata.cli.bisections import judged_table

    output.show(text.plain(kept.question.words()))
    if kept.judged:
        output.show("", judged_table(repository, kept, output.width))
    output.note(
        "\n" + ("it is finished" if kept.done else "it is not finished: the same command line goes on")
    )
