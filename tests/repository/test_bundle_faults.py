"""Faults at the commit that also writes a bundle (I1, I5, I8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import Fault, FaultyStorage, contents, every_fault, memory_of, run_into
from makers import model_folder
from stemmata.log.identity import create_identity
from stemmata.repository import Repository
from stemmata.storage.base import Storage
from stemmata.storage.memory import MemoryStorage

LEVEL = 256


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A repository whose next entry is the one that fills a bundle."""
    storage = MemoryStorage()
    create_identity(storage)
    repo = Repository(storage)
    version = repo.save(model_folder(tmp_path_factory.mktemp("out")), "m", name="v", provenance={})
    for number in range(2, LEVEL):
        repo.annotate(version, metrics={"score": number})
    return contents(storage)


def annotate(storage: Storage) -> None:
    Repository(storage).annotate("m@v", metrics={"score": LEVEL})


def test_i5_a_fault_while_a_bundle_is_written_harms_nothing(start: dict[str, bytes], tmp_path: Path) -> None:
    counting = FaultyStorage(memory_of(start))
    annotate(counting)
    assert any("bundles/" in write for write in counting.log), "no bundle was due; the test shows nothing"
    expected = (model_folder(tmp_path / "out") / "model.safetensors").read_bytes()
    for at, fault in every_fault(counting.writes):
        inner = memory_of(start)
        committed = run_into(fault, lambda s=inner, a=at, f=fault: annotate(FaultyStorage(s, a, f))) is None
        # A new reader without any catalog: it takes the bundle if it is there and sound.
        repo = Repository(memory_of(contents(inner)))
        score = repo["m@v"].metrics["score"]
        assert score in (LEVEL - 1, LEVEL)
        assert score == LEVEL or not committed, (counting.log[at], fault)
        assert repo.check().problems == [], (counting.log[at], fault)
        assert repo["m@v"].read("model.safetensors") == expected


def test_a_lost_bundle_does_not_fail_the_commit_that_was_made(start: dict[str, bytes]) -> None:
    counting = FaultyStorage(memory_of(start))
    annotate(counting)
    bundle = next(i for i, write in enumerate(counting.log) if "bundles/" in write)
    inner = memory_of(start)
    annotate(FaultyStorage(inner, bundle, Fault.ENOSPC, lasting=True))
    assert Repository(inner)["m@v"].metrics["score"] == LEVEL
