"""Settings: what `stemmata run` tells the Pythons below it, and what they report back.

Both go through one environment variable and one file: they cross shells, launchers and job starters.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

VARIABLE = "STEMMATA_RUN"
EVERY = ("epoch", "save", "eval", "end")
"""When a callback may save, where it is no number of steps."""
PATH_VARIABLE = "PYTHONPATH"
BOOTSTRAP = Path(__file__).parent / "bootstrap"
_MAX_REPORT = 1 << 24


class Settings(NamedTuple):
    """For every Trainer: the repository's folder, the model's name, when to save, the run's name, which
    versions stay, and whether a training goes on from its last state."""

    repository: str
    model: str
    every: str | int
    run_name: str | None
    report: str
    keep: str = "all"
    resume: bool = False


def encode(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for the command: with the settings, and the bootstrap first on the path."""
    before = environment.get(PATH_VARIABLE, "")
    # A run within a run: the inner one's settings hold, and the folder stands there once.
    others = [p for p in before.split(os.pathsep) if p != str(BOOTSTRAP)] if before else []
    path = os.pathsep.join([str(BOOTSTRAP), *others])
    return {**environment, PATH_VARIABLE: path, VARIABLE: json.dumps(settings._asdict())}


def decode(environment: Mapping[str, str]) -> Settings:
    """The settings of this process. Raises KeyError, TypeError or ValueError where there are none."""
    return Settings(**json.loads(environment[VARIABLE]))


def report(settings: Settings, kind: str, text: str = "") -> None:
    """Add a line for the parent; in vain where the file is gone, with the parent."""
    report_to(settings.report, kind, text)


def report_to(path: str, kind: str, text: str = "") -> None:
    """As `report`, to that file."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # One write: lines of several processes never mix.
        os.write(fd, (json.dumps({"kind": kind, "text": text}) + "\n").encode())
    except OSError:
        pass  # a full disk has worse to tell elsewhere
    finally:
        os.close(fd)


def read_report(path: Path) -> Iterator[tuple[str, str]]:
    """(kind, text) of every line; what cannot be read was cut off by a kill and is left out."""
    try:
        with open(path, "rb") as file:
            lines = file.read(_MAX_REPORT).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            found = json.loads(line)
            yield str(found["kind"]), str(found["text"])
        except (ValueError, KeyError, TypeError):
            continue
