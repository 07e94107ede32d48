"""Small repositories, made once."""

from __future__ import annotations

import pytest

from stored import Stored, make


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Twelve entries, three packs."""
    return make(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="session")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """The same with a bundle of 256 entries."""
    return make(tmp_path_factory.mktemp("bundled"), entries=258)
