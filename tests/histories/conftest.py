"""A repository in memory, and versions of it that cost next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from stemmata.records import Base, Run
from stemmata.repository import Repository
from stemmata.version import Version

Save = Callable[..., Version]


@pytest.fixture
def repo() -> Iterator[Repository]:
    with Repository.in_memory() as made:
        yield made


@pytest.fixture
def save(repo: Repository, tmp_path: Path) -> Save:
    """Save a folder with one small file, which is another one each time."""
    folder = tmp_path / "small"
    folder.mkdir()

    def call(
        name: str,
        *parents: Version,
        model: str = "m",
        run: str | None = None,
        metrics: Mapping[str, float] | None = None,
        base: Base | None = None,
        epoch: float | None = None,
        step: int | None = None,
        files: Sequence[tuple[str, bytes]] = (),
    ) -> Version:
        for old in folder.iterdir():
            old.unlink()
        for path, data in files or [("note.txt", f"{model}@{name}".encode())]:
            (folder / path).write_bytes(data)
        return repo.save(
            folder,
            model,
            name=name,
            parents=list(parents),
            run=Run(id=(run or "").ljust(32, "0"), name=run) if run else None,
            metrics=metrics or {},
            base=base,
            epoch=epoch,
            step=step,
            provenance={},
            author="ann",
        )

    return call
