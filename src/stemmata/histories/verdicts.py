"""Verdicts: what a bisection has found so far, kept so that it goes on after any end. Owns that file.

It lies beside the catalog, in the repository's cache: a verdict is about this machine and a command on it,
no fact of the repository. One bisection of a model is kept, with a line for each verdict, which is on the
disk before the next version is judged; a line that was cut off is no verdict. A version has a
second line where its first verdict holds no more. The file may vanish: then
versions are judged anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from blake3 import blake3

from stemmata.capture import mask_command
from stemmata.catalog import queries
from stemmata.catalog.queries import VersionRow
from stemmata.histories.problems import BisectionBusy, BisectionUnfinished
from stemmata.histories.searching import Verdict
from stemmata.ids import SHORT
from stemmata.records import timestamp
from stemmata.session import Session

FORMAT = 1
_FOLDER = "bisections"
_LONGEST = 16 << 20
"""Bytes of a file that are read: of a hundred thousand verdicts."""

Cause = Literal["", "time", "lost"]
"""Why a verdict may be another one later: the command took too long; the files could not be had, deleted or
damaged as they were. "": what judges a version said so, and says it again."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a bisection asks: two that ask the same go on with each other's verdicts."""

    good: str
    """Ids, hex."""
    bad: str
    good_name: str
    bad_name: str
    command: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    asked: str = ""
    """What a caller from Python calls its test."""
    by: str = "parents"
    run: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "command": list(self.command), "require": list(self.require)}

    def words(self) -> str:
        """The command line that asks it."""
        import shlex

        words = ["stemmata", "bisect", self.good_name, self.bad_name]
        for each in self.require:
            words += ["--require", each]
        words += ["--by", self.by] if self.by != "parents" else []
        words += ["--run", self.run] if self.run else []
        return shlex.join(words) + (f" -- {shlex.join(self.command)}" if self.command else "")


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of one version."""

    version: str
    """Its id, hex."""
    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    ran: bool = True
    """Whether something was run for it; else its stored metrics told."""
    at: str = ""
    before: bool = False
    """It was found by an earlier call."""
    cause: Cause | None = ""
    """None: it was kept by a release that did not say."""
    timeout: float | None = None
    """Seconds that it had, where these were too few."""

    def now(self, timeout: float | None, timeout_is: Verdict) -> Judged | None:
        """What holds of it where a command has `timeout` seconds (None: all that it takes): another verdict
        if they are too few as well and that counts otherwise. None: what stood in its way may be gone."""
        if self.cause == "time":
            if self.timeout is None or timeout is None or timeout > self.timeout:
                return None
            return replace(self, verdict=timeout_is)
        may_be_gone = self.cause == "lost" or (self.cause is None and self.verdict == "skip")
        return None if may_be_gone else self

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        found.pop("before")
        return found


@dataclass(frozen=True, slots=True)
class Kept:
    """A bisection as its file has it."""

    question: Question
    judged: tuple[Judged, ...]
    done: bool

    def to_dict(self) -> dict[str, Any]:
        judged = [each.to_dict() for each in self.judged]
        return {**self.question.to_dict(), "judged": judged, "done": self.done}


class Verdicts:
    """The file of one bisection, while one process works on it."""

    def __init__(self, file: IO[bytes] | None, judged: Sequence[Judged] = ()) -> None:
        self._file = file
        self.judged = list(judged)

    def add(self, judged: Judged) -> None:
        self.judged.append(judged)
        self._write(judged.to_dict())

    def reconsider(self, timeout: float | None, timeout_is: Verdict) -> None:
        """See which verdicts hold where a command has so many seconds; see `Judged.now`."""
        before, self.judged = self.judged, []
        for each in before:
            now = each.now(timeout, timeout_is)
            if now == each:
                self.judged.append(each)
            elif now is not None:
                self.add(now)

    def forget(self, stale: Callable[[Judged], bool]) -> None:
        """Leave out verdicts that hold no more. They stay in the file until another one follows."""
        self.judged = [each for each in self.judged if not stale(each)]

    def finish(self) -> None:
        """Nothing is left to judge: another question may be asked."""
        self._write({"done": True})

    def _write(self, line: Mapping[str, object]) -> None:
        if self._file is None:
            return
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def question(
    session: Session,
    good: VersionRow,
    bad: VersionRow,
    *,
    command: Sequence[str],
    require: Sequence[str],
    asked: str,
    by: str,
    run: str | None,
) -> Question:
    """What is asked about two versions. Of a command that is kept secrets are masked (I10)."""
    names = [f"{queries.model_name(session.catalog.connection, r.model)}@{r.name}" for r in (good, bad)]
    return Question(
        good.id.hex,
        bad.id.hex,
        names[0],
        names[1],
        command=tuple(mask_command(command)),
        require=tuple(require),
        asked=asked,
        by=by,
        run=run,
    )


@contextmanager
def verdicts(session: Session, row: VersionRow, question: Question, *, restart: bool) -> Iterator[Verdicts]:
    """What is known of a question about the model of `row`, open for more. Where no file can be kept it is
    known while the process lives. Raises BisectionUnfinished, BisectionBusy."""
    path = _path(session, row.model)
    model = queries.model_name(session.catalog.connection, row.model)
    file = _opened(path) if path is not None else None
    if file is None:
        yield Verdicts(None)
        return
    with file:
        if not _alone(file):
            raise BisectionBusy(model=model)
        kept, whole = _read(file)
        if kept is not None and kept.question != question and not (kept.done or restart) and kept.judged:
            raise BisectionUnfinished(
                model=model,
                differs=_differs(kept.question, question),
                count=len(kept.judged),
                command=kept.question.words(),
                kept=kept.to_dict(),
            )
        if restart or kept is None or kept.question != question:
            file.seek(0)
            file.truncate()
            found = Verdicts(file)
            found._write({"format": FORMAT, "model": model, "at": _now(), **question.to_dict()})
        else:
            # What follows the last whole line was being written when the process ended.
            file.seek(whole)
            file.truncate()
            found = Verdicts(file, kept.judged)
        yield found


def kept_of(session: Session, model: str) -> Kept | None:
    """The bisection of a model (by key) that is kept, finished or not."""
    path = _path(session, model)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return _read(file)[0]
    except OSError:
        return None


# --- the file -------------------------------------------------------------------------------------


def _path(session: Session, model: str) -> Path | None:
    """Nowhere for a repository that ends with its process."""
    if session.storage.where.startswith("memory"):
        return None
    try:
        folder = session.cache_folder()
    except RuntimeError:
        return None  # a user without a home
    return folder / _FOLDER / f"{blake3(model.encode()).hexdigest(8)}.jsonl"


def _opened(path: Path) -> IO[bytes] | None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return os.fdopen(fd, "r+b")
    return None


def _alone(file: IO[bytes]) -> bool:
    """Whether no other process has it open so. Where there are no locks nobody is kept out."""
    try:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def _read(file: IO[bytes]) -> tuple[Kept | None, int]:
    """What the file tells, and where its last whole line ends. None where it is not of this format."""
    data = file.read(_LONGEST)
    whole = data.rfind(b"\n") + 1
    lines: list[Any] = []
    for line in data[:whole].splitlines():
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError):
            return None, 0
    try:
        head = lines[0]
        if head["format"] != FORMAT:
            return None, 0
        fields: dict[str, Any] = {field: head[field] for field in Question.__dataclass_fields__}
        fields |= {field: tuple(fields[field]) for field in ("command", "require")}
        judged: dict[str, Judged] = {}
        for line in lines[1:]:
            if "verdict" in line:
                each = Judged(**{"cause": None, **line, "before": True})
                is_number = isinstance(each.timeout, int | float | None)
                if each.verdict not in ("good", "bad", "skip") or not is_number:
                    return None, 0
                # A later one stands for what is now: it takes its own place in the order.
                judged.pop(each.version, None)
                judged[each.version] = each
        # With more time, say, a search goes on that had come to its end.
        done = "done" in lines[-1]
        return Kept(Question(**fields), tuple(judged.values()), done), whole
    except (IndexError, KeyError, TypeError):
        return None, 0


def _differs(kept: Question, asked: Question) -> str:
    """In what the question that is kept is another one."""
    found = []
    if (kept.good, kept.bad) != (asked.good, asked.bad):
        found.append(
            f"it is about {kept.good_name} ({kept.good[:SHORT]}) … {kept.bad_name} ({kept.bad[:SHORT]})"
        )
    if kept.command != asked.command or kept.asked != asked.asked:
        found.append("its command is another one")
    if kept.require != asked.require:
        found.append("it requires something else")
    if (kept.by, kept.run) != (asked.by, asked.run):
        found.append("it takes the versions in another order")
    return ", ".join(found) or "it names the same versions otherwise"


def _now() -> str:
    return timestamp(datetime.now(UTC))
