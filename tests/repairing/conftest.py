from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from faults import contents, memory_of
from shop import Epochs
from stemmata.repository import Repository
from stemmata.storage.memory import MemoryStorage

COUNT = 4


@pytest.fixture(scope="session")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> Epochs:
    return Epochs(tmp_path_factory.mktemp("epochs") / "m", width=48)


@pytest.fixture(scope="session")
def kept(epochs: Epochs) -> dict[str, bytes]:
    """Four versions, the tensors of each later one leaning on those before."""
    with Repository.in_memory() as repo:
        epochs.history(repo, COUNT)
        return contents(repo.session.storage)


@pytest.fixture
def store(kept: dict[str, bytes]) -> Callable[[], MemoryStorage]:
    """Copies of that repository, in memory: no cache can help."""
    return lambda: memory_of(kept)


@pytest.fixture
def laid_out(tmp_path: Path, kept: dict[str, bytes]) -> Path:
    """A copy as a folder."""
    root = tmp_path / "copy"
    for key, data in kept.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root
