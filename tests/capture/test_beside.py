"""A capture beside a save: the same as at once, and over when the save is, however that ends."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from makers import model_folder
from stemmata import capturing
from stemmata.capturing import background
from stemmata.errors import NameTaken
from stemmata.repository import Repository


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "stemmata-capture"]


def test_it_tells_what_a_capture_at_once_tells() -> None:
    with capturing.beside() as captured:
        pass
    assert captured.objects() == capturing.collect()


def test_a_save_keeps_it(tmp_path: Path) -> None:
    repo = Repository.in_memory()
    version = repo.save(model_folder(tmp_path / "m"), "m")
    assert json.loads(version.provenance("packages"))["msgspec"]
    assert set(version.record.provenance) >= set(capturing.collect())
    assert running() == []


def test_what_is_given_goes_before_it(tmp_path: Path) -> None:
    repo = Repository.in_memory()
    version = repo.save(model_folder(tmp_path / "m"), "m", provenance={"packages": b"{}"})
    assert set(version.record.provenance) == {"packages"}


def test_nothing_of_it_goes_on_after_a_save_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly() -> dict[str, str | dict[str, object]]:
        time.sleep(0.2)
        return {}

    repo = Repository.in_memory()
    folder = model_folder(tmp_path / "m")
    repo.save(folder, "m", name="first", provenance={})
    monkeypatch.setattr(background.packages, "collect", slowly)
    with pytest.raises(NameTaken):
        repo.save(folder, "m", name="first")
    assert running() == []


def test_where_no_thread_is_to_be_had_it_captures_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may have as many threads as it is allowed; from Python 3.12 on none begins as it ends."""
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name == "stemmata-capture":
            raise RuntimeError("can't create new thread at interpreter shutdown")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    version = Repository.in_memory().save(model_folder(tmp_path / "m"), "m")
    assert json.loads(version.provenance("packages"))["msgspec"]
    assert set(version.record.provenance) >= set(capturing.collect())
