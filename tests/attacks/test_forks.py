"""Forked children of a process that has a repository open, as DataLoader workers are."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import stemmata
from makers import model_folder

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    # Python warns of forks beside threads: just what is tested here.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def run_in_child(work: Any) -> None:
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(120)
    alive = child.is_alive()
    if alive:
        child.kill()
    assert not alive
    assert child.exitcode == 0


def test_a_child_reads_and_saves_with_its_parents_repository(tmp_path: Path) -> None:
    repo = stemmata.open(tmp_path / "repo", create=True)
    source = model_folder(tmp_path / "src")
    version = repo.save(source, "m", name="first", provenance={})

    def work() -> None:
        assert version.read("config.json") == (source / "config.json").read_bytes()
        repo.save(source, "m", name="second", provenance={})

    run_in_child(work)
    assert repo["m@second"].name == "second"
    assert repo.check().sound


def test_a_child_does_not_wait_for_a_lock_that_a_thread_held_at_the_fork(tmp_path: Path) -> None:
    repo = stemmata.open(tmp_path / "repo", create=True)
    version = repo.save(model_folder(tmp_path / "src"), "m", provenance={})
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with repo.session.catalog.lock:
            taken.set()
            release.wait(0.5)  # the fork waits for this thread

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(60)

    def work() -> None:
        assert version.read("config.json")
        assert len(repo.versions("m")) == 1

    run_in_child(work)
    release.set()
    thread.join()
