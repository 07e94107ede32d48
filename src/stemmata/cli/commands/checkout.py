"""`stemmata checkout`."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.numerics import without_blas
from stemmata.cli.options import At, Json, Ref, Repo, Yes, a_path, open_repo, output_for, outside
from stemmata.cli.registry import command_app

if TYPE_CHECKING:
    from stemmata.version import Version

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata checkout sentiment@production -o model/",
        'stemmata checkout sentiment@production --at "3 weeks ago" -o then/',
        "stemmata checkout 3f9a12bc -o model/ --force",
        json="version (id, model, name), path, files, bytes, at (UTC or null)",
    ),
)
def checkout(
    context: typer.Context,
    reference: Ref,
    into: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="The folder to write into; made if absent.")
    ],
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Write into a folder that is not empty, replacing files of the same names."
        ),
    ] = False,
    yes: Yes = False,
    at: At = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Write a version's files into a folder, byte for byte.

    Every byte is verified before any file appears. A folder that holds something is refused; with
    --force files of the same names are replaced, after a question on a terminal unless -y is given,
    and all others stay.
    """
    without_blas()
    output = output_for(context, as_json)
    with open_repo(context, repo) as repository:
        resolved = repository.resolve(reference, at=at)
        version = repository.get(resolved.row.id)
        target = outside(a_path(into, "--output"), "--output")
        if resolved.at_utc is not None:
            output.note(f"as of {text.utc(resolved.at_utc)}")
        doomed = _replaced(version, target) if force and not yes else []
        if doomed:
            shown = ", ".join(text.plain(p) for p in doomed[:3]) + (", …" if len(doomed) > 3 else "")
            if not output.ask(f"Replace {text.count(len(doomed), 'file')} in {text.plain(into)} ({shown})?"):
                raise typer.Abort
        with _ended_by_sigterm(), output.progress("writing", version.size) as progress:
            version.checkout(target, force=force, progress=progress)
        content = version.record.content
        if output.json:
            output.document(
                {
                    "version": {"id": version.id.hex, "model": version.model, "name": version.name},
                    "path": str(target),
                    "files": content.files,
                    "bytes": content.bytes,
                    "at": resolved.at_utc,
                }
            )
            return
        what = f"{text.plain(version.model)}@{text.plain(version.name)} {version.short}"
        amount = f"{text.count(content.files, 'file')}, {text.size(content.bytes)}"
        output.show(f"Wrote {what} to {text.plain(into)} ({amount}, verified)")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """What a batch system sends ends it as an error does: nothing half-written is left."""

    def end(*_: object) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _replaced(version: Version, target: Path) -> list[str]:
    """Files of the version that the target folder holds already."""
    return [f.path for f in version.files if (target / f.path).is_file()]
