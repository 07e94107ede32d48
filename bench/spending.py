"""What a save by the command line spends its time on: the start of Python, what it loads, the rest, `sync`.

Owns how these are told apart: the same save is made again and again, beside a Python that loads the same
modules and does nothing.
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
from measuring import COMMAND, Peaks, timed, warm

_ROUNDS = 5
_LOADED = """import importlib, sys
for name in sys.argv[1].split():
    try:
        importlib.import_module(name)
    except Exception:
        pass
"""


def spent(entries: Sequence[Entry], model: str, work: Path) -> dict[str, float]:
    """Seconds of the save of the last of `entries` after the others: `python`, to start it, `load`, what the
    save imports, `work`, the rest until the command has ended, and `disk`, what `sync` takes then."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        stemmata.open(work / "before" / "repository", create=True).close()
        for entry in entries[:-1]:
            _save(entry, model, work / "before")
        modules = _modules(entries[-1], model, work)
        rounds = [_round(entries[-1], model, work, modules) for _ in range(_ROUNDS)]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    saved, synced, loaded, python = (median(times) for times in zip(*rounds, strict=True))
    return {"python": python, "load": loaded - python, "work": saved - loaded, "disk": synced}


def _round(entry: Entry, model: str, work: Path, modules: str) -> tuple[float, float, float, float]:
    """Seconds of the command, of `sync` after it, to load the same, to start Python."""
    now = _again(work)
    warm(entry.folder)
    warm(now)
    os.sync()
    saved, synced = timed(lambda: _save(entry, model, now)), timed(os.sync)
    python = [sys.executable, "-c"]
    loaded = timed(lambda: Peaks().run([*python, _LOADED, modules]))
    return saved, synced, loaded, timed(lambda: Peaks().run([*python, "pass"]))


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
