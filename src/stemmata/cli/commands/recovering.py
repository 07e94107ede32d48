"""What `stemmata check --repair` does to the log before it looks at anything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from stemmata.cli import text
from stemmata.cli.output import Output

if TYPE_CHECKING:
    from stemmata.recovering import Lost, RecoveryReport, Vanished
    from stemmata.storage.base import Storage

_MOST = 20
"""Lines of one kind that are printed; --json has them all."""


def recover_log(
    output: Output, storage: Storage, sources: Sequence[str] = (), *, dry_run: bool = False
) -> RecoveryReport:
    """Put right what is damaged of the log, from what is intact and from those of `sources` that are copies
    of the repository, and say so. Works on a repository that cannot be opened. Says nothing of a sound log.

    Raises RepositoryNotFound, NewerFormat, the storage's errors.
    """
    from stemmata import recovering

    report = recovering.recover(storage, sources=recovering.copies_at(sources, storage), dry_run=dry_run)
    if not output.json:
        tell_recovery(output, report)
    return report


def tell_recovery(output: Output, report: RecoveryReport) -> None:
    from stemmata.cli.listing import DIM
    from stemmata.cli.styled import Text

    if report.recovered:
        verb = "to be recovered" if report.dry_run else "recovered"
        what = text.count(len(report.recovered), "file of the log", "files of the log")
        output.show(Text(f"{what} {verb}", "bold green"))
        for each in report.recovered[:_MOST]:
            line = Text(f"  {each.key}")
            line.append(f"  {text.plain(each.was)}; from {text.plain(each.source)}", DIM)
            output.show(line)
        _more(output, len(report.recovered))
    if report.identity:
        output.show(Text("stemmata.json is lost", "bold red"), Text(f"  {text.plain(report.identity)}", DIM))
    for lost in report.lost[:_MOST]:
        output.show(Text(f"{_entries(lost)} lost", "bold red"), Text(f"  {text.plain(_about(lost))}", DIM))
        _versions(output, lost.versions)
    _more(output, len(report.lost))
    for n in report.breaks[:_MOST]:
        output.show(Text(f"entry {n} does not follow the one before it: two histories", "bold red"))
    if report.out_of_reach:
        which = text.count(len(report.out_of_reach), "version")
        output.show(Text(f"{which} out of reach behind what is lost", "bold red"))
        _versions(output, report.out_of_reach)
    for note in report.notes:
        output.show(Text(f"note: {text.plain(note)}", "yellow"))
    if not report.complete:
        whole = f"entries 1 to {report.whole} are whole" if report.whole else "no entry is whole"
        output.note(
            f"{whole}; what could not be recovered was left as it is; add "
            "--from with another copy of the repository"
        )


def _entries(lost: Lost) -> str:
    return f"entry {lost.first}" if lost.first == lost.last else f"entries {lost.first} to {lost.last}"


def _about(lost: Lost) -> str:
    """Why, when it was written, and what is known of what it said."""
    words = lost.reason
    if lost.after and lost.before:
        words += f"; written from {text.local(lost.after)} to {text.local(lost.before)}"
    elif lost.after:
        words += f"; written after {text.local(lost.after)}"
    elif lost.before:
        words += f"; written before {text.local(lost.before)}"
    return words


def _versions(output: Output, versions: Iterable[Vanished]) -> None:
    from stemmata.cli.listing import ID
    from stemmata.cli.styled import Text

    all_of_them = list(versions)
    for version in all_of_them[:_MOST]:
        name = f"{version.model}@{version.name}" if version.model else "a version"
        line = Text(f"  {text.plain(name)}")
        line.append(f"  {version.id[:12]}", ID)
        output.show(line)
    _more(output, len(all_of_them))


def _more(output: Output, count: int) -> None:
    if count > _MOST:
        from stemmata.cli.listing import DIM
        from stemmata.cli.styled import Text

        output.show(Text(f"  … and {count - _MOST} more; see all with --json", DIM))
