from __future__ import annotations

from pathlib import Path

import pytest

from shop import Epochs


@pytest.fixture
def epochs(tmp_path: Path) -> Epochs:
    return Epochs(tmp_path / "epochs")


@pytest.fixture(scope="module")
def small_epochs(tmp_path_factory: pytest.TempPathFactory) -> Epochs:
    return Epochs(tmp_path_factory.mktemp("epochs") / "small", layers=1, width=32)
