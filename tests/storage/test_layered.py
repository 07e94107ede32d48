"""Layered meets the contract, and leaves what lies below as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stemmata.errors import KeyExists, KeyMissing
from stemmata.storage.base import Storage
from stemmata.storage.layered import LayeredStorage
from stemmata.storage.memory import MemoryStorage
from storage_contract import StorageContract


def nothing(_key: str) -> bool:
    return False


class TestLayered(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return LayeredStorage(MemoryStorage(), MemoryStorage(), nothing)


@pytest.fixture
def below() -> Iterator[MemoryStorage]:
    """What lies below; it is the same afterwards."""
    storage = MemoryStorage()
    for key in ("a", "log/1", "log/2", "log/3", "packs/p"):
        storage.put_new(key, f"below {key}".encode())
    yield storage
    kept = {k.key: storage.get(k.key) for k in storage.list("")}
    assert kept == {key: f"below {key}".encode() for key in ("a", "log/1", "log/2", "log/3", "packs/p")}


def test_what_lies_below_is_read_and_never_written(below: MemoryStorage) -> None:
    storage = LayeredStorage(MemoryStorage(), below, nothing)
    assert storage.get("log/2", 6) == b"log/2"
    assert storage.size("log/2") == 11
    with pytest.raises(KeyExists):
        storage.put_new("log/2", b"mine")
    with pytest.raises(KeyExists):
        storage.start_new("packs/p")
    storage.put_new("log/4", b"mine")
    storage.replace("a", b"mine")
    storage.delete("log/1")
    assert [k.key for k in storage.list("")] == ["a", "log/1", "log/2", "log/3", "log/4", "packs/p"]
    assert [k.key for k in storage.list("log/", after="log/2")] == ["log/3", "log/4"]
    assert storage.get("a") == b"mine"


def test_what_is_hidden_is_free(below: MemoryStorage) -> None:
    storage = LayeredStorage(MemoryStorage(), below, lambda key: key in ("log/2", "log/3"))
    for ask in (storage.get, storage.size):
        with pytest.raises(KeyMissing):
            ask("log/2")
    storage.put_new("log/2", b"mine")
    assert [k.key for k in storage.list("log/")] == ["log/1", "log/2"]
    assert storage.get("log/2") == b"mine"
