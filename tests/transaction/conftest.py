"""Commits that wait for nobody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from commits import World
from stemmata import transaction


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction.time, "sleep", lambda seconds: None)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.catalog.close()
