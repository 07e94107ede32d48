"""stemmata as walking.py's tool: as whole processes, and in one.

python bench/ours.py JOB        one walk in one process; used by history.py, which makes the job
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import leanings
import spending
import stemmata
from manifests import Entry
from measuring import COMMAND, Peaks, peak_of, repository_bytes
from stemmata.codecs import payloads
from walking import OUT, Row, WalksAlone, walk

MODEL = "measured"
_USERS = "users-cache"


class _Ours:
    def prepare(self, home: Path) -> None:
        self._home, self._repository = home, home / "repository"
        self._repo = stemmata.open(self._repository, create=True)

    def stage(self, entry: Entry) -> None: ...

    def store_bytes(self) -> int:
        return repository_bytes(self._repository)


class Whole(_Ours):
    """The command line: `stemmata save` and `stemmata checkout`, a process each."""

    title = "stemmata"
    how = "`stemmata save FOLDER MODEL --name NAME --parent …`, and `stemmata checkout MODEL@NAME`"

    def install(self) -> None: ...

    def version(self) -> str:
        kernels = "kernels in numpy" if payloads.why_not else "compiled kernels"
        # By the command itself: as each of the others, it has been started once before it is measured.
        return f"{self._peaks.run([COMMAND, '--version']).strip()}, {kernels}"

    def start(self) -> str:
        self._peaks.run([COMMAND, "--version"])
        return "stemmata --version"

    def __init__(self) -> None:
        self._peaks = Peaks()

    def save(self, entry: Entry) -> None:
        parents = [word for parent in entry.parents for word in ("--parent", f"{MODEL}@{parent}")]
        self._run("save", entry.folder, MODEL, "--name", entry.name, *parents)

    def restore(self, entry: Entry) -> Path:
        self._run("checkout", f"{MODEL}@{entry.name}", "-o", self._home / OUT)
        return self._home / OUT

    def opened(self, entries: Sequence[Entry], work: Path) -> float | None:
        rows, _ = inside(entries, work)
        return rows[-1].save

    def stored(self, entries: Sequence[Entry]) -> dict[str, dict[str, Any]] | None:
        return leanings.leanings(self._repository, MODEL, [entry.name for entry in entries])

    def spent(self, entries: Sequence[Entry], work: Path) -> dict[str, float] | None:
        return spending.spent(entries, MODEL, work)

    def peak(self) -> int:
        return self._peaks.take()

    def _run(self, *arguments: str | Path) -> None:
        # As the others': what it keeps for itself lies in the walk's home.
        own = {**os.environ, "STEMMATA_CACHE": str(self._home / _USERS)}
        self._peaks.run([COMMAND, *arguments, "-R", self._repository], cwd=self._home, env=own)


class _Otherwise(WalksAlone, Whole):
    """The same, used otherwise: what is asked of the first once is not asked of it."""


class Alone(_Otherwise):
    """The same without a word on where a version came from: it looks for what is alike by itself."""

    title = "stemmata, no parent told"
    how = "`stemmata save FOLDER MODEL --name NAME`, and `stemmata checkout MODEL@NAME`"

    def save(self, entry: Entry) -> None:
        super().save(replace(entry, parents=()))


class Gone(_Otherwise):
    """The same where no parent's folder lies there any more: where it lay is forgotten."""

    title = "stemmata, parent's folder gone"

    def stage(self, entry: Entry) -> None:  # noqa: ARG002
        shutil.rmtree(self._home / _USERS, ignore_errors=True)


class Inside(_Ours):
    """The library: one repository that stays open."""

    title = "stemmata in one process"

    def save(self, entry: Entry) -> None:
        parents = [f"{MODEL}@{parent}" for parent in entry.parents]
        self._repo.save(entry.folder, MODEL, name=entry.name, parents=parents)

    def restore(self, entry: Entry) -> Path:
        return self._repo[f"{MODEL}@{entry.name}"].checkout(self._home / OUT)

    def peak(self) -> int:
        return 0


def inside(entries: Sequence[Entry], work: Path) -> tuple[list[Row], int]:
    """A walk in one process of its own. Returns the rows and that process's peak of memory."""
    job = {"work": str(work), "entries": [{**asdict(e), "folder": str(e.folder)} for e in entries]}
    told = json.loads(Peaks().run([sys.executable, __file__, json.dumps(job)]))
    return [Row(**row) for row in told["rows"]], told["peak"]


def main() -> None:
    job = json.loads(sys.argv[1])
    entries = [
        Entry(**{**e, "folder": Path(e["folder"]), "parents": tuple(e["parents"])}) for e in job["entries"]
    ]
    rows = walk(Inside(), entries, Path(job["work"]))
    print(json.dumps({"rows": [asdict(row) for row in rows], "peak": peak_of()}))


if __name__ == "__main__":
    main()
