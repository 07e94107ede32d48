"""What a save by the command line spends its time on: the start of Python, what it loads, the disk, the rest.

Owns how these are told apart: the same save is made again and again, into a repository on the disk and into
one in memory (tmpfs), beside a Python that loads the same modules and does nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import stemmata
from manifests import Entry
from measuring import COMMAND, Peaks, timed, to_disk, warm

_ROUNDS = 5
_MEMORY = Path("/dev/shm")
"""Linux's folder in memory."""
_ROOM = 3
"""Times the bytes of all versions that have to be free there."""
_LOADED = """import importlib, sys
for name in sys.argv[1].split():
    try:
        importlib.import_module(name)
    except Exception:
        pass
"""


def spent(entries: Sequence[Entry], model: str, work: Path) -> dict[str, float] | None:
    """Seconds of the save of the last of `entries` after the others: `whole`, and of them `python`, to start
    it, `load`, what the save imports, `disk`, and `work`, the rest. None where memory has no room for it."""
    needed = _ROOM * sum(entry.bytes for entry in entries)
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < needed:
        return None
    memory = _MEMORY / f"stemmata-spending-{os.getpid()}"
    try:
        for home in (work, memory):
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            stemmata.open(home / "before" / "repository", create=True).close()
            for entry in entries[:-1]:
                _save(entry, model, home / "before")
        modules = _modules(entries[-1], model, memory)
        rounds = [_round(entries[-1], model, work, memory, modules) for _ in range(_ROUNDS)]
    finally:
        for home in (work, memory):
            shutil.rmtree(home, ignore_errors=True)
    whole, inside, loaded, python = (median(times) for times in zip(*rounds, strict=True))
    parts = {"python": python, "load": loaded - python, "work": inside - loaded, "disk": whole - inside}
    parts = {part: max(0.0, seconds) for part, seconds in parts.items()}  # of chance
    return {"whole": whole, **parts}


def _round(
    entry: Entry, model: str, work: Path, memory: Path, modules: str
) -> tuple[float, float, float, float]:
    """Seconds of the save on the disk, of the save in memory, to load the same, to start Python."""
    saves = []
    for home in (work, memory):
        now = _again(home)
        warm(entry.folder)
        warm(now)
        saves.append(to_disk(lambda now=now: _save(entry, model, now)))
    python = [sys.executable, "-c"]
    loaded = timed(lambda: Peaks().run([*python, _LOADED, modules]))
    return saves[0], saves[1], loaded, timed(lambda: Peaks().run([*python, "pass"]))


def _again(home: Path) -> Path:
    """The repository as it was before the save."""
    now = home / "now"
    shutil.rmtree(now, ignore_errors=True)
    return Path(shutil.copytree(home / "before", now))


def _save(entry: Entry, model: str, home: Path) -> None:
    Peaks().run(_words(entry, model, home), cwd=home, env=_environment(home))


def _words(entry: Entry, model: str, home: Path) -> list[str | Path]:
    parents = [word for parent in entry.parents for word in ("--parent", f"{model}@{parent}")]
    return [COMMAND, "save", entry.folder, model, "--name", entry.name, *parents, "-R", home / "repository"]


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "STEMMATA_CACHE": str(home / "users-cache")}


def _modules(entry: Entry, model: str, home: Path) -> str:
    """What the save imports, in its order."""
    now = _again(home)
    command = [sys.executable, "-X", "importtime", *_words(entry, model, now)]
    told = subprocess.run(command, env=_environment(now), capture_output=True, text=True, check=True).stderr
    return " ".join(re.findall(r"^import time:[ \d]+\|[ \d]+\|\s+([\w.]+)$", told, re.MULTILINE))
