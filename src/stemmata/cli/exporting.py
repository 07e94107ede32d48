"""`show --card`, `--script` and `--requirements`: a version's record for others, to stdout or into a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.version import Version


def chosen(exports: Mapping[str, bool], others: Mapping[str, bool], target: Path | None) -> str | None:
    """Which one was asked for; None for none. Raises InvalidArgument for what does not go together."""
    asked = [name for name, is_asked in exports.items() if is_asked]
    if len(asked) > 1:
        reason = f"it cannot be printed together with --{asked[0]}; ask for one at a time"
        raise InvalidArgument(argument=f"--{asked[1]}", reason=reason)
    if not asked:
        if target is not None:
            reason = "it says where --card, --script or --requirements is written; name one of them"
            raise InvalidArgument(argument="--output", reason=reason)
        return None
    for option, is_given in others.items():
        if is_given:
            raise InvalidArgument(argument=option, reason=f"it says nothing beside --{asked[0]}")
    if target is not None and target.is_dir():
        name = {"card": "README.md", "script": "train.py", "requirements": "requirements.txt"}[asked[0]]
        raise InvalidArgument(argument="--output", reason=f"{target} is a folder; say {target / name}")
    return asked[0]


def export(output: Output, version: Version, what: str, target: Path | None, at: str | None) -> None:
    """Print or write it. Raises InvalidArgument if the file cannot be written."""
    text = {"card": version.card, "script": version.script, "requirements": version.requirements}[what]()
    if target is not None:
        _write(target, text)
    if output.json:
        written = str(target) if target is not None else None
        document = {"version": version.id.hex, "export": what, "text": text, "written": written, "at": at}
        output.document(document)
    elif target is not None:
        output.note(f"written to {target}")
    else:
        # As it is: folded to the terminal's width it would be another file.
        sys.stdout.write(text)
        sys.stdout.flush()


def _write(target: Path, text: str) -> None:
    """The whole file or, if something goes wrong, the one that was there; a link stays one, and what is no
    file, as a pipe or /dev/stdout, is written to."""
    beside = None
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
            return
        target = target.resolve()
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    except OSError as error:
        if beside is not None:
            beside.unlink(missing_ok=True)
        reason = f"{target} cannot be written: {error.strerror}"
        raise InvalidArgument(argument="--output", reason=reason) from error
