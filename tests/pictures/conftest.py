"""One repository to look at, which nobody writes to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from picture_makers import fill
from stemmata.repository import Repository


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Three runs of a model, and an adapter of two epochs."""
    with Repository.in_memory() as made:
        fill(made, tmp_path_factory.mktemp("work"))
        yield made
