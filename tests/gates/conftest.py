"""A log and a catalog to ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shelf import Shelf


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    made.close()
