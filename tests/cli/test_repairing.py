"""check --repair, as it is typed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from makers import adapter_folder
from spoiled import pack_of, spoil
from stemmata.repository import open as open_repository
from stemmata.storage.local import LocalStorage

Cli = Callable[..., Any]


@pytest.fixture
def damaged(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shop with a flipped bit in the weights of r8/epoch-3, and a copy of it from before."""
    monkeypatch.setenv("COLUMNS", "400")  # a temporary folder's path may be long
    shutil.copytree(shop / ".stemmata", shop / "copy")
    storage = LocalStorage(shop / ".stemmata")
    spoil(storage, pack_of(storage, 5), "frame")
    return shop


def test_it_mends_from_a_copy_and_says_so(damaged: Path, cli: Cli) -> None:
    assert cli("check").code == 5
    said = cli("check", "--repair", "--from", damaged / "copy")
    assert said.code == 0, said
    assert f"1 object taken from {damaged / 'copy'}" in said.out
    assert "1 version whole again" in said.out
    assert "sentiment@r8/epoch-3" in said.out
    assert "retired" in said.out
    again = cli("check", "--repair")
    assert again.code == 0
    assert "Nothing to mend" in again.out
    with open_repository(".stemmata") as repo, open_repository("copy") as copy:
        for path in ("adapter_model.safetensors", "adapter_config.json"):
            assert repo["sentiment@r8/epoch-3"].read(path) == copy["sentiment@r8/epoch-3"].read(path)


def test_a_folder_that_was_saved_is_a_source_too(damaged: Path, cli: Cli) -> None:
    adapter_folder(damaged / "again", seed=83, rank=8)
    told = cli("check", "--repair", "--from", "again", "--dry-run")
    assert told.code == 5  # it is damaged still
    assert "1 object would be taken from again" in told.out
    assert "1 version would be whole again" in told.out
    assert cli("check", "--repair", "--from", "nowhere-near").code == 3
    found = cli("check", "--repair", "--from", "again", "--json")
    assert found.code == 0
    assert found.json["sound"] is False
    assert found.json["problems"][0]["pack"]
    mended = found.json["repair"]
    assert mended["sound"] is True
    assert [each["source"] for each in mended["restored"]] == ["again"]
    assert [each["name"] for each in mended["whole"]] == ["r8/epoch-3"]


def test_what_is_lost_is_named_and_the_exit_status_says_so(damaged: Path, cli: Cli) -> None:
    shutil.rmtree(damaged / "out")
    said = cli("check", "--repair")
    assert said.code == 5
    assert "lost: no source has it" in said.out
    shown = " ".join(said.out.split())
    assert "sentiment@r8/epoch-3 adapter_model.safetensors, tensor base_model.model" in shown
    assert "--from" in said.err
    lost = cli("check", "--repair", "--json").json["repair"]["lost"]
    assert [(each["what"], each["name"]) for each in lost] == [("file", "adapter_model.safetensors")]


@pytest.mark.parametrize("option", [("--from", "out"), ("--dry-run",)])
def test_what_goes_with_it_is_refused_alone(shop: Path, cli: Cli, option: tuple[str, ...]) -> None:
    said = cli("check", *option)
    assert said.code == 2
    assert "it goes with --repair" in said.err
