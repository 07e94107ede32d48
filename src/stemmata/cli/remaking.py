"""Making runs again, for people: the plan, the verdict, and the options that both commands share."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.styled import Text
from stemmata.cli.tables import pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stemmata.capturing import Missing
    from stemmata.cli.output import Output
    from stemmata.reproducing.planning import Plan
    from stemmata.reproducing.redoing import Remade, Repeated

Work = Annotated[
    str | None,
    typer.Option("--work", metavar="FOLDER", help="Work in this empty folder; it stays. Default: a new one."),
]
Keep = Annotated[bool, typer.Option("--keep", metavar="", help="Keep the work folder, and say where it is.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", help="After that the command is ended, with all it started."
    ),
]
Code = Annotated[
    str | None,
    typer.Option("--code", metavar="FOLDER", help="A clone that has the commit, if its place does not."),
]
Base = Annotated[
    str | None, typer.Option("--base", metavar="FOLDER", help="The base model, if it is not where it was.")
]
Link = Annotated[
    list[str] | None,
    typer.Option(
        "--link", metavar="PATH", help="Of the run's folder: link it instead of copying. May be given again."
    ),
]
Arg = Annotated[
    list[str] | None,
    typer.Option(
        "--arg",
        metavar="NAME=VALUE",
        help="An argument that was masked, by its option or number; else $STEMMATA_ARG_NAME.",
    ),
]

_TONES = {"good": "bold green", "bad": "bold red", "warn": "yellow", "dim": "dim"}
_FEW = 8


def stages(output: Output) -> Callable[[str, Plan], None]:
    """Says on stderr what is done now."""

    def told(stage: str, plan: Plan) -> None:
        if output.json:
            return
        if stage == "planned":
            for item in plan.items:
                output.note(f"{item.what}: {text.plain(item.how)}")
            for words in _short(plan.missing):
                output.note(f"missing: {words}")
            _note_changes(output, plan)
        elif stage == "running":
            output.note(f"$ {_command(plan)}")
        else:
            output.note("comparing what came of it")

    return told


def _note_changes(output: Output, plan: Plan) -> None:
    """What is not as it was then, the most important first."""
    changes = plan.surroundings.changes
    for each in changes[:_FEW]:
        before, now = ("absent" if value is None else text.plain(str(value)) for value in (each.a, each.b))
        output.note(f"not as it was then: {text.plain(each.item.name)} {before} → {now}")
    if len(changes) > _FEW:
        output.note(f"and {len(changes) - _FEW} others: --dry-run lists them")
    if changes:
        name = text.plain(plan.name)
        output.note(f"nothing is installed: stemmata show {name} --requirements lists what the run had")


def passing_on(data: bytes) -> None:
    """What the command prints: stdout is for results."""
    stream = getattr(sys.stderr, "buffer", None)
    if stream is None:
        sys.stderr.write(data.decode("utf-8", "replace"))
        return
    sys.stderr.flush()
    stream.write(data)
    stream.flush()


def tell_plan(output: Output, plan: Plan) -> None:
    """What would be done, and nothing done."""
    from stemmata.cli.provenances import environment_lines

    if output.json:
        output.document(plan.to_dict())
        return
    output.show(Text(text.plain(plan.name), "bold").append(f"  {plan.version.short}", "yellow"))
    rows = [(item.what, Text(text.plain(item.how))) for item in plan.items]
    rows.append(("command", Text(_command(plan))))
    rows.append(("in", Text(text.plain(str(plan.places.folder)))))
    if plan.changed is not None:
        rows.append(("changed", Text(text.plain(plan.changed.words), "green")))
    rows.append(("reach", Text(plan.reach, "bold red" if plan.blocked else "")))
    output.show(pairs(rows, output.width))
    _tell_missing(output, "without these it cannot be run", plan.blocked, "red")
    _tell_missing(output, "missing", plan.missing, "yellow")
    if plan.surroundings:
        output.show("", Text("then → now", "bold"))
        output.show(*environment_lines(plan.surroundings, output.width, full=False))
        output.note("nothing is installed: stemmata show REF --requirements lists what the run had")
    for words in plan.notes:
        output.note(text.plain(words))


def tell_verdict(output: Output, made: Remade) -> None:
    """The verdict on stdout, what it cost on stderr."""
    for line in made.verdict.lines():
        style = _TONES.get(line.tone, "")
        words = Text().append(f"{line.title}: " if line.title else "", "dim")
        output.show(words.append(text.plain(line.text), style))
    for note in made.notes:
        output.note(text.plain(note))
    _tell_end(output, made.seconds, str(made.work) if made.work is not None else None)


def tell_repeated(output: Output, made: Repeated) -> None:
    """The fork's versions."""
    source = f"{made.version.model}@{made.version.name}"
    count = text.count(len(made.versions), "version")
    output.show(f"{count} of {text.plain(source)} with {text.plain(made.changed)}")
    rows = [
        (v.short, Text(text.plain(f"{v.model}@{v.name}")).append_text(_metrics(v.metrics)))
        for v in made.versions
    ]
    output.show(pairs(rows, output.width))
    for note in made.notes:
        output.note(text.plain(note))
    _tell_end(output, made.seconds, str(made.work) if made.work is not None else None)
    output.note(f"look: stemmata diff {text.plain(source)} {made.versions[-1].short}")


def _metrics(metrics: object) -> Text:
    from stemmata.metricnames import by_interest

    found = dict(metrics) if isinstance(metrics, dict) else {}
    told = [f"{text.plain(key)} {text.precise(found[key])}" for key in by_interest(found, None)[:2]]
    return Text(f"  {'  '.join(told)}" if told else "", "dim")


def _tell_end(output: Output, seconds: float, work: str | None) -> None:
    output.note(f"the command took {text.duration(seconds)}")
    if work is not None:
        output.note(f"kept: {text.plain(work)}")


def _tell_missing(output: Output, title: str, found: Sequence[Missing], style: str) -> None:
    if found:
        output.show("", Text(title, f"bold {style}"))
        output.show(pairs([(text.plain(m.what), Text(text.plain(m.why))) for m in found], output.width))


def _short(found: Sequence[Missing]) -> list[str]:
    said = [text.plain(f"{m.what}: {m.why}") for m in found[:_FEW]]
    return said + ([f"{len(found) - _FEW} more"] if len(found) > _FEW else [])


def _command(plan: Plan) -> str:
    return text.plain(shlex.join(plan.shown)) if plan.argv else "none"
