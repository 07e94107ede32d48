"""Folders as a Trainer leaves them, made without one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from makers import model_folder
from stemmata.repository import Repository
from stemmata.repository import open as open_repository

Checkpoint = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user-cache"))
    monkeypatch.delenv("STEMMATA_REPO", raising=False)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with open_repository(tmp_path / "models", create=True) as opened:
        yield opened


def state(step: int, by: float = 1.0, *, every: int = 2) -> str:
    """Of a training whose losses are `by` times those of another, logged so often."""
    rows = [
        {"step": s, "epoch": s / 2, "loss": by / s, "eval_loss": 2 * by / s, "odd": float("nan")}
        for s in range(every, step + 1, every)
    ]
    rows.append({"step": step + 2, "loss": 99.0})
    return json.dumps({"global_step": step, "epoch": step / 2, "log_history": rows})


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Folders below which nothing can be looked at, as on a share whose server is away."""
    away: set[Path] = set()
    seen, listed, scanned = os.stat, os.listdir, os.scandir

    def hold(path: Any) -> None:
        if not isinstance(path, int) and any(Path(path).is_relative_to(each) for each in away):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    def stat(path: Any, *more: Any, **named: Any) -> os.stat_result:
        hold(path)
        return seen(path, *more, **named)

    def listdir(path: Any = ".") -> list[str]:
        hold(path)
        return listed(path)

    def scandir(path: Any = ".") -> Any:
        hold(path)
        return scanned(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "listdir", listdir)
    return away


@pytest.fixture
def checkpoint() -> Checkpoint:
    """Write `checkpoint-N` into a folder: weights of seed N, states to resume from, the state last. Those of
    another training have `by`."""

    def write(output: Path, step: int, *, whole: bool = True, by: float = 1.0, every: int = 2) -> Path:
        folder = model_folder(output / f"checkpoint-{step}", step + round(1000 * (by - 1)))
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (folder / name).write_bytes(b"a pickle")
        if whole:
            (folder / "trainer_state.json").write_text(state(step, by, every=every))
        return folder

    return write
