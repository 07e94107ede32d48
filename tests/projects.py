"""A project of somebody's: a script that makes a model with numpy alone and saves it, and its owner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.version import Version

SOURCE = str(Path(__file__).parents[1] / "src")
TRAIN = """
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import stemmata
from helper import SCALE

rows = np.loadtxt("data.csv", delimiter=",")
weights = (np.random.default_rng(3).normal(size=(4, 4)) * SCALE + rows.sum()).astype("float32")
out = Path("out")
out.mkdir(exist_ok=True)
save_file({"weights": weights}, out / "model.safetensors")
with stemmata.open("models", create=True) as repo:
    repo.save(out, "plain", name="one", metrics={"loss": float(weights.sum())})
"""


class Project:
    """A folder with code, and how its owner works in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def repository(self) -> Path:
        return self.folder / "models"

    def write(self, **files: str) -> None:
        """Files by their names, with `__` for the dot: train__py."""
        for name, text in files.items():
            path = self.folder / name.replace("__", ".")
            path.write_text(text)

    def git(self, *arguments: str, at: Path | None = None) -> str:
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, "-c", "protocol.file.allow=always", "-C", str(at or self.folder)]
        done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, message: str = "work", *paths: str) -> None:
        self.git("add", *(paths or (".",)))
        self.git("commit", "-q", "-m", message)

    def run(self, *command: str, status: int = 0, **variables: str) -> str:
        """Run Python in the project, as its owner does. What it printed."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STEMMATA_")}
        environment |= {"PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1", **variables}
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == status, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout

    def open(self) -> Repository:
        return open_repository(self.repository)

    def reproduce(self, reference: str = "plain@one", **more: Any) -> Any:
        with self.open() as repository:
            return repository.reproduce(reference, **more)

    def version(self, reference: str = "plain@one") -> Version:
        return self.open()[reference]
