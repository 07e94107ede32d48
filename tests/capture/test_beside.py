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
