"""Compiles the inner loops of the codecs when stemmata is installed or a wheel is built.

Without a C compiler, or where compiling fails, the installation goes on: numpy then does the same work,
slower. STEMMATA_NATIVE=0 leaves it out; STEMMATA_NATIVE=require makes its failure one of the build.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/stemmata/codecs/kernels.c"
TARGET = "src/stemmata/codecs/_kernels.so"
FLAGS = ["-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden"]


class Compile(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        wanted = os.environ.get("STEMMATA_NATIVE", "")
        problem = "left out by STEMMATA_NATIVE=0" if wanted == "0" else compiled(root)
        if problem is not None:
            # One that is left from an earlier build may be of other sources.
            (root / TARGET).unlink(missing_ok=True)
            if wanted == "require":
                raise SystemExit(f"the codecs could not be compiled: {problem}")
            self.app.display_warning(f"codecs run in numpy: {problem}")
            return
        build_data["artifacts"].append(TARGET)
        if version != "editable":
            build_data["pure_python"] = False
            # Of a platform, but of no release of Python: nothing of Python's is called.
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compiled(root: Path) -> str | None:
    """Compile; None, or why it could not be done."""
    if sys.byteorder != "little":
        return "this machine is big-endian"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    # Beside its place and then moved: another process may have the old one mapped.
    handle, made = tempfile.mkstemp(suffix=".so", dir=(root / TARGET).parent)
    os.close(handle)
    try:
        command = [*compiler, *FLAGS, "-o", made, str(root / SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{compiler[0]} fails: {done.stderr.strip()[-500:]}"
        Path(made).chmod(0o755)
        Path(made).replace(root / TARGET)
        return None
    except OSError as error:
        return f"{compiler[0]} cannot be run: {error}"
    finally:
        Path(made).unlink(missing_ok=True)
