"""Process: the command line, where it ran, and since when."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from stemmata.capture import MASK, known_secrets, mask, mask_command, mask_known
from stemmata.capturing.entries import BOOTSTRAP
from stemmata.capturing.missing import Missing, told
from stemmata.capturing.secrets import mask_source
from stemmata.records import timestamp

_ATTACHED = "STEMMATA_RUN"
"""The variable by which `stemmata run` tells its command what to save."""
_SAID_TO_ATTACH = ("model", "every", "run_name")


def collect() -> dict[str, object]:
    """`argv` argument by argument, masked; the working folder; `PYTHONPATH` without stemmata's own part.

    `begun`: when this process was started, which tells what was there before it from what it made;
    `attached`: what `stemmata run` was told, if that started it.
    """
    argv = _argv()
    missing = [
        Missing(f"argument {number}", "it looked like a secret and was replaced by ***: give it again")
        for number, (given, kept) in enumerate(zip(sys.orig_argv or argv, argv, strict=False))
        if MASK in kept and given != kept
    ]
    try:
        folder = str(Path.cwd())
    except OSError:
        folder = ""
        missing.append(Missing("folder", "the working folder was removed"))
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    own = [mask(path) for path in paths if path and not path.endswith(BOOTSTRAP)]
    return {
        "argv": argv,
        "folder": mask(folder),
        "python_path": own,
        "begun": _begun(os.getpid()),
        "attached": _attached(),
        "missing": told(missing),
    }


@lru_cache(maxsize=1)
def _begun(_process: int) -> str | None:
    """When this process was started; None where the system does not tell it in a file."""
    try:
        # The process's own name stands in brackets before the numbers, and may hold blanks.
        fields = (
            Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        # Whole ticks are told, the last one that was over: it began within the next.
        begun = (int(fields[19]) + 1) / os.sysconf("SC_CLK_TCK")
        age = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - begun)
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return timestamp(datetime.now(UTC) - timedelta(seconds=age))


def _attached() -> dict[str, object] | None:
    said = os.environ.get(_ATTACHED)
    if said is None:
        return None
    try:
        found = json.loads(said)
        return {name: found[name] for name in _SAID_TO_ATTACH}
    except (ValueError, KeyError, TypeError):
        return None


def _argv() -> list[str]:
    argv = [*sys.orig_argv] if sys.orig_argv else [sys.executable, *sys.argv]
    secrets = known_secrets()
    masked = [mask_known(argument, secrets) for argument in mask_command(argv)]
    for number, argument in enumerate(argv[:-1]):
        if argument == "-c" and number == masked.index("-c"):
            masked[number + 1] = mask_known(mask_source(argv[number + 1], "command.py"), secrets)
            break
    return masked
