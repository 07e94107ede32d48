"""A repository to speak of, and the command line as a call."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from makers import adapter_folder
from stemmata.cli.main import run
from stemmata.records import Run
from stemmata.repository import open as open_repository


class Said(NamedTuple):
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture(scope="session")
def pristine_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of three epochs, r=4 and r=8, under .stemmata; production moved twice, then back."""
    root = tmp_path_factory.mktemp("shop")
    with open_repository(root / ".stemmata", create=True) as repo:
        for rank in (4, 8):
            for epoch in (1, 2, 3):
                folder = adapter_folder(root / "out", seed=10 * rank + epoch, rank=rank)
                version = repo.save(
                    folder,
                    "sentiment",
                    name=f"r{rank}/epoch-{epoch}",
                    run=Run(id=f"{rank:032x}", name=f"r{rank}"),
                    epoch=float(epoch),
                    step=50 * epoch,
                    metrics={"eval_loss": 1 / (rank + epoch), "eval_f1": 0.5 + epoch / 10, "grad_norm": 2.0},
                    config={"learning_rate": 2e-4},
                    message=f"rank {rank}, epoch {epoch}",
                    author="ann",
                )
            repo.alias("sentiment", "production", version, why=f"gate of r{rank}")
        repo.rollback("sentiment", "production", why="latency")
        repo.tag("sentiment", "v1", "sentiment@r8/epoch-1")
        repo.configure("sentiment", metric="eval_loss", direction="min")
    return root


@pytest.fixture
def shop(pristine_shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working directory."""
    shutil.copytree(pristine_shop, tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")
    monkeypatch.delenv("STEMMATA_REPO", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "shop"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run one command line in this process."""

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call
