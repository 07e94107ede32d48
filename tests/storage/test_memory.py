"""Memory meets the contract."""

from __future__ import annotations

import pytest

from stemmata.storage.base import Storage
from stemmata.storage.memory import MemoryStorage
from storage_contract import StorageContract


class TestMemory(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


def test_two_memories_share_nothing() -> None:
    first, second = MemoryStorage(), MemoryStorage()
    first.put_new("a", b"1")
    assert list(second.list("")) == []
    assert first.cache_folder is None
