"""Code blocks of the documentation, and how they are run: as a newcomer would, one after another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from warm import WarmPython

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block. `line` is where its code begins, from 1."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def is_set_up(self) -> bool:
        """Calls of the project's own scripts: they make the environment that this test runs in."""
        return all(line.startswith(("./scripts/", ".ci/")) for line in self.code.splitlines() if line.strip())


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(page, text.count("\n", 0, m.start(2)) + 1, m[1], m[2]) for m in _FENCE.finditer(text)]


def run(block: Block, folder: Path, warm: WarmPython) -> subprocess.CompletedProcess[str]:
    """Run one block in `folder`, with this interpreter's programs first on the path."""
    # A place of its own for the libraries' caches: nothing of the user's is read or left behind.
    own = {"HF_HOME": str(folder / ".huggingface"), "STEMMATA_CACHE": str(folder / ".cache")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, **own, "PATH": path}
    if block.language == "python":
        return warm.run(block.code, cwd=folder, env=env)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
