"""Ctrl-C in a save, while objects are coded on other threads: nothing is named, and all goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import faults
from stemmata.checking import check
from stemmata.repository import Repository


def written(folder: Path, seed: int) -> bytes:
    """Tensors that are coded on threads of their own, near those of any other seed."""
    base, rng = np.random.default_rng(0), np.random.default_rng([1, seed])
    tensors = {f"t{i}": base.normal(size=(300, 300)) + rng.normal(size=(300, 300)) * 1e-5 for i in range(6)}
    folder.mkdir(exist_ok=True)
    save_file({name: a.astype(np.float32) for name, a in tensors.items()}, folder / "model.safetensors")
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("at", [1, 2, 5, 7])
@pytest.mark.parametrize("threads", ["1", "2", "8"])
def test_i5_an_interrupted_save_leaves_no_trace(
    tmp_path: Path, at: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEMMATA_THREADS", threads)
    told: list[int] = []

    def interrupt(size: int) -> None:
        told.append(size)
        if len(told) == at:
            raise KeyboardInterrupt

    with Repository.in_memory() as repo:
        written(tmp_path / "out", 1)
        repo.save(tmp_path / "out", "m", name="one", provenance={})
        before = faults.contents(repo.session.storage)
        data = written(tmp_path / "out", 2)
        with pytest.raises(KeyboardInterrupt):
            repo.save(tmp_path / "out", "m", name="two", parents=["m@one"], provenance={}, progress=interrupt)
        assert faults.contents(repo.session.storage) == before
        assert not [t for t in threading.enumerate() if t.name.startswith("stemmata-read")]
        version = repo.save(tmp_path / "out", "m", name="two", parents=["m@one"], provenance={})
        assert version.read("model.safetensors") == data
        assert check(repo.session.storage).sound
