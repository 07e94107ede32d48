"""What the tests of hf/ share: a repository, a base on disk, caches of their own."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

import tiny_models as tiny
from stemmata.repository import Repository
from stemmata.repository import open as open_repository


@pytest.fixture(scope="session", autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.fixture(scope="module", autouse=True)
def nothing_old_is_looked_at_for_garbage() -> None:
    """What the module before imported (see tests/conftest.py)."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user-cache"))
    monkeypatch.delenv("STEMMATA_REPO", raising=False)
    monkeypatch.delenv("STEMMATA_MODEL", raising=False)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than tiny models do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with open_repository(tmp_path / "models", create=True) as opened:
        yield opened


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny GPT-2 with its tokenizer, saved in a folder."""
    return tiny.saved_base(tmp_path / "base")
