"""`stemmata check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import typer

from stemmata.cli import text
from stemmata.cli.commands.recovering import recover_log
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.numerics import without_blas
from stemmata.cli.options import Json, Repo, open_repo, output_for, repo_folder
from stemmata.cli.output import Output
from stemmata.cli.registry import command_app
from stemmata.errors import Damage, InvalidArgument

if TYPE_CHECKING:
    from stemmata.checking import Note, Problem, Report
    from stemmata.repairing import RepairReport

_Kinded = TypeVar("_Kinded", "Note", "Problem")

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata check",
        "stemmata check --level structure -R /data/models",
        "stemmata check --sample 5%",
        "stemmata check --resume",
        "stemmata check --repair --from out/ --from /backup/models --dry-run",
        "stemmata check --repair --from out/",
        json="sound (bool), level, sample, seed, resumed, problems (list of kind, where, reason, "
        "versions, pack), notes (list of kind, where, reason), affected (list of id, model, name), "
        "counts {entries, bundles, checkpoints, packs, objects, versions, files, bytes}; with --repair also "
        "recovery (of the log: complete, recovered, lost, breaks, identity, out_of_reach, …) and repair "
        "{sound, dry, damaged, restored (list of source, objects, bytes), whole (list of id, model, name), "
        "lost (list of version, model, version_name, what, name, tensor, size, digest), left, checkpoints, "
        "packs_added, packs_retired, versions_placed, written}",
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
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            metavar="",
            help="Mend what is damaged or missing in packs with what other copies, cached checkouts and "
            "--from have of it.",
        ),
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="With --repair: a repository, a folder of model files or a file that may have what is lost; "
            "may be given again.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", metavar="", help="With --repair: show what would be mended, and change nothing."
        ),
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
    tree and whole files, aliases, checkpoints, and the catalog, which is thrown away if it is wrong. Nothing
    else is changed. --level says how deep, --sample in which part. Exits with 5 if anything is damaged, and
    names the versions that are affected.

    --repair puts the log right first, with bytes that its own hashes prove, from bundles, the catalog and
    copies of the repository. Then it writes what can be had again of packs into new ones, reads it back and
    lets versions name those. A wrong checkpoint is made anew. No pack is deleted, and what cannot be had is
    named and stays as it is. Exits with 5 if damage is left.
    """
    from stemmata import checking, repairing
    from stemmata.storage.local import LocalStorage

    without_blas()
    output = output_for(context, as_json)
    if not repair and (source or dry_run):
        raise InvalidArgument(argument="--from" if source else "--dry-run", reason="it goes with --repair")
    if source:
        repairing.require_sources(source)
    storage = LocalStorage(repo_folder(context, repo))
    recovered = recover_log(output, storage, source or [], dry_run=dry_run) if repair else None
    if accept_older:
        with open_repo(context, repo) as repository:
            repository.accept_older()
    with output.progress("checking") as bar:
        report = checking.check(
            storage,
            level=cast("checking.Level", level),
            sample=_part(sample),
            seed=seed,
            resume=resume,
            progress=bar.to if bar is not None else None,
        )
    if not output.json:
        _tell(output, report, advise=not repair)
    # Nothing can be written behind a log with holes: packs are mended once it is whole.
    may_mend = recovered is not None and recovered.complete and not (dry_run and recovered.recovered)
    mended = _repair(context, repo, output, report, source or [], dry_run) if may_mend else None
    if report.older and not output.json:
        output.note(_GO_ON)
    if recovered is not None and recovered.recovered and dry_run:
        output.note("what can be mended of packs is told once the log is put right: run it without --dry-run")
    if output.json:
        told = {"recovery": recovered, "repair": mended}
        output.document(report.to_dict() | {k: v.to_dict() for k, v in told.items() if v is not None})
    if not (report if mended is None else mended).sound or not (recovered is None or recovered.complete):
        raise typer.Exit(Damage.exit_code)


def _repair(
    context: typer.Context,
    repo: str | None,
    output: Output,
    found: Report,
    source: Sequence[str],
    dry_run: bool,
) -> RepairReport:
    from stemmata import repairing

    with open_repo(context, repo) as repository, output.progress("mending", counted=True) as bar:
        mended = repairing.repair(
            repository.session, found, source, dry_run=dry_run, progress=bar.to if bar is not None else None
        )
    if not output.json:
        _tell_mended(output, mended)
    return mended


_GO_ON = (
    "if this copy is older than what was written here last, bring the newer files back, or go on from it "
    "with: stemmata check --accept-older"
)
_MOST = 20
"""Lines of one kind that are printed; --json has them all."""


def _tell(output: Output, report: Report, *, advise: bool) -> None:
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
        _tell_of_more(output, len(group))
    if report.affected:
        output.show(Text(text.count(len(report.affected), "version") + " affected", "bold red"))
        for version in report.affected:
            line = Text(f"  {text.plain(version.model)}@{text.plain(version.name)}")
            line.append(f"  {version.id[:12]}", ID)
            output.show(line)
    for kind, notes in _grouped(report.notes):
        output.show(Text(f"note: {text.count(len(notes), *_NOTES[kind])}", "yellow"))
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
    # That entries are missing at the end is no damage to mend: a copy is brought back, or gone on from.
    if advise and len(report.problems) > report.older:
        output.note(
            "stemmata check --repair takes what is damaged from other copies, with --from also from another "
            "repository or from folders that have it; what is not listed as affected reads as it was saved"
        )


def _tell_mended(output: Output, mended: RepairReport) -> None:
    from stemmata.cli.listing import DIM, ID
    from stemmata.cli.styled import Text

    would = "would be " if mended.dry else ""
    for each in mended.restored:
        line = Text(f"{text.count(each.objects, 'object')} {would}taken from {text.plain(each.source)}")
        line.append(f"  {text.size(each.bytes)}", DIM)
        output.show(line)
    if mended.whole:
        output.show(Text(f"{text.count(len(mended.whole), 'version')} {would}whole again", "bold green"))
    for version in mended.whole[:_MOST]:
        line = Text(f"  {text.plain(version.model)}@{text.plain(version.name)}")
        line.append(f"  {version.id[:12]}", ID)
        output.show(line)
    _tell_of_more(output, len(mended.whole))
    if mended.lost:
        output.show(Text("lost: no source has it", "bold red"))
    for lost in mended.lost[:_MOST]:
        what = {"file": "", "tree": "", "provenance": "provenance "}[lost.what] + lost.name
        what += f", tensor {lost.tensor}" if lost.tensor else ""
        line = Text(f"  {text.plain(lost.model)}@{text.plain(lost.version_name)}  {text.plain(what)}")
        if lost.what == "file":
            line.append(f"  {text.size(lost.size)}, BLAKE3 {lost.digest[:12]}", DIM)
        output.show(line)
    _tell_of_more(output, len(mended.lost))
    if mended.left:
        output.show(Text("left as it is", "bold red"))
    for left in mended.left[:_MOST]:
        output.show(Text(f"  {text.plain(left)}", DIM))
    _tell_of_more(output, len(mended.left))
    if mended.packs_added or mended.packs_retired:
        output.show(
            Text(
                f"{text.count(mended.packs_added, 'pack')} written, {text.size(mended.written)}; "
                f"{mended.packs_retired} retired, which stemmata gc deletes after the readers' grace",
                DIM,
            )
        )
    if mended.checkpoints:
        what = text.count(len(mended.checkpoints), "checkpoint of the log", "checkpoints of the log")
        output.show(f"{what} {would}made anew")
    if not mended.damaged:
        output.show("Nothing to mend in packs.")
    if mended.lost:
        output.note(
            "another copy of this repository has it, or the folder that was saved: name them with --from; of "
            "provenance that is gone for good, stemmata redact leaves a tombstone"
        )


def _tell_of_more(output: Output, count: int) -> None:
    from stemmata.cli.listing import DIM
    from stemmata.cli.styled import Text

    if count > _MOST:
        output.show(Text(f"  … and {count - _MOST} more; see all with --json", DIM))


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
    "catalog": ("cached catalog thrown away", "cached catalogs thrown away"),
    "void": ("log entry without effect", "log entries without effect"),
    "bundle": ("missing bundle", "missing bundles"),
    "checkpoint": ("checkpoint that is missing or not used", "checkpoints that are missing or not used"),
    "log": ("log without an entry", "logs without an entry"),
    "statistics": ("table of statistics that is lost", "tables of statistics that are lost"),
    "orphan": ("unused pack", "unused packs"),
    "unread": ("pack that a damaged entry may name", "packs that a damaged entry may name"),
    "aside": ("damaged file that was put aside", "damaged files that were put aside"),
    "retired": ("damaged, unneeded pack", "damaged, unneeded packs"),
    "leftover": ("unfinished write", "unfinished writes"),
    "unknown": ("unknown file", "unknown files"),
}
"""What one note of a kind is called, and several."""


def _grouped(found: Sequence[_Kinded]) -> list[tuple[str, list[_Kinded]]]:
    groups: dict[str, list[_Kinded]] = {}
    for each in found:
        groups.setdefault(each.kind, []).append(each)
    return list(groups.items())
