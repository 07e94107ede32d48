"""Output: where results, errors and progress go. Owns JSON's shape and the three-part error.

Results go to stdout, everything else to stderr; colour and progress only where a person looks.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from stemmata.cli import text
from stemmata.cli.styled import Text, cell_len, escaped, fold
from stemmata.errors import InvalidArgument, InvalidExpression, StemmataError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
UNLIMITED = 10_000
"""The width of what is no terminal: nothing is cut off in a pipe or a file."""


def width_of(stream: TextIO) -> int:
    """Columns to use: COLUMNS if set, else the terminal's, else no limit."""
    chosen = os.environ.get("COLUMNS", "")
    if chosen.isdecimal() and int(chosen) > 0:
        return max(40, int(chosen))
    if not stream.isatty():
        return UNLIMITED
    try:
        return max(40, os.get_terminal_size(stream.fileno()).columns)
    except OSError:
        return 80


class Bar:
    """A progress bar: called with how many more bytes are done."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def __call__(self, more: int) -> None:
        self._bar.advance(self._task, more)

    def to(self, done: int, total: int) -> None:
        """So many bytes of so many."""
        self._bar.update(self._task, completed=done, total=total)


class Output:
    """One command's way to speak. `json` turns tables into one JSON document on stdout."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json

    @cached_property
    def width(self) -> int:
        return width_of(sys.stdout)

    def document(self, content: Mapping[str, object]) -> None:
        """Print one JSON document."""
        import msgspec

        encoded = msgspec.json.format(msgspec.json.encode(json_safe(content)), indent=2).decode("utf-8")
        if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
            import json

            # What the stream cannot hold would be question marks, and two names one.
            encoded = _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], encoded)
        sys.stdout.write(encoded + "\n")

    def show(self, *what: str | Text) -> None:
        """Print lines; each is taken as it is, never as markup."""
        for item in what:
            line = Text(item) if isinstance(item, str) else item
            # Tables are laid out already; sentences break between words.
            _print(sys.stdout, *([line] if line.no_wrap else fold(line, self.width)))

    def note(self, words: str) -> None:
        """An aside for the person at the keyboard; nothing with --json."""
        if not self.json:
            indent = len(words) - len(words.lstrip(" "))
            wrapped = " " * indent + _hanging(words.strip(" "), width_of(sys.stderr), indent)
            _say(Text(wrapped, "dim"))

    @contextmanager
    def progress(
        self, doing: str, total: int | None = None, *, counted: bool = False
    ) -> Iterator[Bar | None]:
        """A bar over bytes, or over things that are `counted`; None where nobody looks (--json, a pipe)."""
        if self.json or not sys.stderr.isatty():
            yield None
            return
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        amounts = (MofNCompleteColumn(),) if counted else (DownloadColumn(), TransferSpeedColumn())
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), *amounts)
        with Progress(*columns, console=_console(sys.stderr), transient=True) as bar:
            yield Bar(bar, bar.add_task(doing, total=total))

    def ask(self, question: str, *, undoable: bool = True) -> bool:
        """Yes or no from the terminal. Where nobody can answer, the command line's word stands for what can
        be undone; for the rest InvalidArgument asks for --yes."""
        # Closed by whoever started us, as a service manager may, it is nothing at all.
        if self.json or sys.stdin is None or not sys.stdin.isatty():
            if not undoable:
                reason = "this cannot be undone, and nobody can be asked here; say --yes if it is meant"
                raise InvalidArgument(argument="--yes", reason=reason)
            return True
        _print(sys.stderr, Text(f"{question} [y/N] "), end="")
        return sys.stdin.readline().strip().lower() in ("y", "yes")


class Unwritten(OSError):
    """Stdout could not be written: no failure of what the command does."""


def _print(stream: TextIO, *lines: Text, end: str = "\n") -> None:
    """Write lines at once: what follows on the other stream shall be seen after them."""
    styled, colours = styles_of(stream)
    written = [escaped(line, colours=colours) if styled else line.plain for line in lines]
    try:
        stream.write("\n".join(written) + end)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(*error.args) from error


def _say(line: Text) -> None:
    """A line on stderr. Where that cannot be written, what the command does and its exit code stay."""
    try:
        _print(sys.stderr, line)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    # Point it away, or the interpreter tries once more while it exits, and complains.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def styles_of(stream: TextIO) -> tuple[bool, bool]:
    """Whether `stream` understands styles, and whether colours among them are wanted."""
    forced = os.environ.get("FORCE_COLOR")
    seen = stream.isatty() if forced is None else bool(forced)
    styled = seen and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return styled, styled and not os.environ.get("NO_COLOR")


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    # With a height too: rich takes no terminal that calls itself dumb at its width otherwise, but for 80.
    height = shutil.get_terminal_size().lines
    return Console(
        file=stream, width=width_of(stream), height=height, highlight=False, markup=False, emoji=False
    )


def json_safe(value: object) -> Any:
    """`value` as JSON can hold it: NaN and infinities as "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {json_safe(str(k)): json_safe(v) for k, v in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [json_safe(v) for v in value]
    if isinstance(value, datetime):
        from stemmata.records import timestamp  # it needs msgspec

        return timestamp(value)
    if is_dataclass(value) and not isinstance(value, type):
        return json_safe(asdict(value))
    if hasattr(value, "__struct_fields__"):
        return json_safe({name: getattr(value, name) for name in value.__struct_fields__})
    return json_safe(str(value))


def error_document(kind: str, message: str, data: Mapping[str, object]) -> dict[str, object]:
    """What --json prints for a failure."""
    return {"error": {"kind": kind, "message": message, "data": dict(data)}}


def report_error(output: Output, error: StemmataError, help_at: str = "") -> None:
    """Say what happened, what was left untouched, what to do next; of an option its help."""
    if output.json:
        output.document(error_document(error.kind, str(error), error.data))
    parts = [p.format(**error.data) for p in (error.what, error.untouched, error.next_step)]
    if isinstance(error, InvalidExpression):
        _point_at(str(error.data["text"]), int(str(error.data["position"])))
    if not parts[2] and isinstance(error, InvalidArgument):
        parts[2] = help_at
    report_failure(*parts)


def _point_at(expression: str, position: int) -> None:
    """The expression on a line of stderr, a caret below what cannot be read."""
    room = width_of(sys.stderr) // 2
    begin = max(0, position - 1 - room)
    before = text.plain(expression[begin : position - 1])
    rest = text.plain(expression[position - 1 :])[: max(1, room - 9)]
    lead = "…" if begin else ""
    line = Text(f"  {lead}{before}{rest}\n" + " " * (2 + cell_len(lead + before)))
    _say(line.append("^", "bold red"))


def report_failure(what: str, untouched: str = "", next_step: str = "") -> None:
    """The three parts of a failure on stderr."""
    width = width_of(sys.stderr)
    lines = Text().append("error: ", "bold red")
    lines.append(_hanging(what, width, 7))
    if untouched:
        lines.append("\n       " + _hanging(untouched, width, 7))
    if next_step:
        lines.append("\n   next: ", "bold cyan")
        lines.append(_hanging(next_step, width, 9))
    _say(lines)


def report_unwritten(error: OSError) -> None:
    """Stdout could not be written, as on a full disk. That its reader has left is not worth a word."""
    if not isinstance(error, BrokenPipeError):
        report_failure(f"the output cannot be written: {error.strerror or error}")
    _give_up(sys.stdout)


def _hanging(words: str, width: int, indent: int) -> str:
    """`words` wrapped at blanks, under themselves. A path longer than a line stays whole."""
    lines = [
        part
        for line in text.plain(words, lines=True).split("\n")
        for part in textwrap.wrap(line, width - indent, break_long_words=False, break_on_hyphens=False)
        or [""]
    ]
    return ("\n" + " " * indent).join(lines)
