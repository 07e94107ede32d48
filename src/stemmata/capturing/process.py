"""Process: the command line, and where it ran."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stemmata.capture import MASK, known_secrets, mask, mask_command, mask_known
from stemmata.capturing.missing import Missing, told
from stemmata.capturing.secrets import mask_source

_BOOTSTRAP = str(Path("stemmata", "attach", "bootstrap"))


def collect() -> dict[str, object]:
    """`argv` argument by argument, masked; the working folder; `PYTHONPATH` without stemmata's own part."""
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
    own = [mask(path) for path in paths if path and not path.endswith(_BOOTSTRAP)]
    return {"argv": argv, "folder": mask(folder), "python_path": own, "missing": told(missing)}


def _argv() -> list[str]:
    argv = [*sys.orig_argv] if sys.orig_argv else [sys.executable, *sys.argv]
    secrets = known_secrets()
    masked = [mask_known(argument, secrets) for argument in mask_command(argv)]
    for number, argument in enumerate(argv[:-1]):
        if argument == "-c" and number == masked.index("-c"):
            masked[number + 1] = mask_known(mask_source(argv[number + 1], "command.py"), secrets)
            break
    return masked
