"""`stemmata check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Repo, open_repo, output_for, repo_folder
from stemmata.cli.output import Output
from stemmata.cli.registry import command_app
from stemmata.errors import Damage, InvalidArgument

if TYPE_CHECKING:
    from stemmata.checking import Note, Problem, Report

_Kinded = TypeVar("_Kinded", "Note", "Problem")

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata check",
        "stemmata check --level structure -R /data/models",
        "stemmata check --sample 5%",
        "stemmata check --resume",
        json="sound (bool), level, sample, seed, resumed, problems (list of kind, where, reason, "
        "versions), notes (list of kind, where, reason), affected (list of id, model, name), "
        "counts {entries, bundles, packs, objects, versions, files, bytes}",
    ),
)
def check(
    context: typer.Context,
    level: Annotated[
        str,
        typer.Option(
            "--level",
            metavar="LEVEL",
            help="structure (fast; reads no weights), stored (every stored byte) or full (all is decoded).",
        ),
    ] = "full",
    sample: Annotated[
        str | None,
        typer.Option("--sample", metavar="PART", help="Go so deep only in a random part: 5% or 0.05."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Take the sample that an earlier check took.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a check of this level was interrupted.")
    ] = False,
    accept_older: Annotated[
        bool,
        typer.Option(
            "--accept-older",
            metavar="",
            help="Go on from a copy that is older than what was written there last: a restored backup.",
        ),
    ] = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Verify the repository.

    The identity, the log and its chain, bundles, packs, every object decoded, every version's record,
    tree and whole files, aliases, and the catalog, which is thrown away if it is wrong. Nothing else is
    changed. --level says how deep, --sample in which part. Exits with 5 if anything is damaged, and names
    the versions that are affected.
    """
    from stemmata import checking
    from stemmata.storage.local import LocalStorage

    output = output_for(context, as_json)
    storage = LocalStorage(repo_folder(context, repo))
    with output.progress("checking") as bar:
        report = checking.check(
            storage,
            level=cast("checking.Level", level),
            sample=_part(sample),
            seed=seed,
            resume=resume,
            progress=bar.to if bar is not None else None,
        )
    if output.json:
        output.document(report.to_dict())
    else:
        _tell(output, report)
    if accept_older:
        with open_repo(context, repo) as repository:
            repository.accept_older()
    if not report.sound:
        raise typer.Exit(Damage.exit_code)


_MOST = 20
"""Lines of one kind that are printed; --json has them all."""


def _tell(output: Output, report: Report) -> None:
    from stemmata.cli.listing import DIM, ID
    from stemmata.cli.styled import Text

    counts = report.counts
    for kind, group in _grouped(report.problems):
        output.show(
            Text(text.count(len(group), f"damaged {kind}") if kind != "ref" else "wrong names", "bold red")
        )
        for problem in group[:_MOST]:
            line = Text(f"  {text.plain(problem.where)}")
            line.append(f"  {text.plain(problem.reason)}", DIM)
            output.show(line)
        if len(group) > _MOST:
            output.show(Text(f"  … and {len(group) - _MOST} more; see all with --json", DIM))
    if report.affected:
        output.show(Text(text.count(len(report.affected), "version") + " affected", "bold red"))
        for version in report.affected:
            line = Text(f"  {text.plain(version.model)}@{text.plain(version.name)}")
            line.append(f"  {version.id[:12]}", ID)
            output.show(line)
    for kind, notes in _grouped(report.notes):
        output.show(Text(f"note: {text.count(len(notes), _NOTES[kind])}", "yellow"))
        for note in notes[:_MOST]:
            output.show(Text(f"  {text.plain(note.where)}  {text.plain(note.reason)}", DIM))
    verdict = Text()
    verdict.append(*(("sound", "bold green") if report.sound else ("damaged", "bold red")))
    how = _HOW[report.level]
    if report.sample is not None:
        how += f"; a sample of {100 * report.sample:g}% (--seed {report.seed})"
    if report.resumed:
        how += f"; {text.count(report.resumed, 'pack')} read before the interruption"
    verdict.append(
        f"  {text.count(counts.versions, 'version')}, {text.count(counts.files, 'file')}, "
        f"{text.count(counts.objects, 'object')}, {text.count(counts.packs, 'pack')}, "
        f"{text.count(counts.entries, 'log entry', 'log entries')}, {text.size(counts.bytes)}{how}"
    )
    output.show(verdict)
    if not report.sound:
        output.note(
            "restore the damaged files from a copy; what is not listed as affected reads as it was saved"
        )


def _part(sample: str | None) -> float | None:
    """`5%` or `0.05`."""
    if sample is None:
        return None
    try:
        return float(sample[:-1]) / 100 if sample.endswith("%") else float(sample)
    except ValueError:
        raise InvalidArgument(argument="sample", reason=f"{sample!r} is no part such as 5% or 0.05") from None


_HOW = {
    "structure": "; stored bytes were not read (--level structure)",
    "stored": "; objects were not decoded (--level stored)",
    "full": "",
}
_NOTES = {
    "catalog": "cached catalog thrown away",
    "void": "log entry without effect",
    "orphan": "unused pack",
    "leftover": "unfinished write",
    "unknown": "unknown file",
}


def _grouped(found: Sequence[_Kinded]) -> list[tuple[str, list[_Kinded]]]:
    groups: dict[str, list[_Kinded]] = {}
    for each in found:
        groups.setdefault(each.kind, []).append(each)
    return list(groups.items())
