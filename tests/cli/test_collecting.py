"""gc and repack, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from stemmata.cli.main import run
from stemmata.log import ops
from stemmata.repository import open as open_repository


@pytest.fixture
def deleted(shop: Path) -> Path:
    """The shop without the first two versions of r4."""
    with open_repository(shop / ".stemmata") as repo:
        for epoch in (1, 2):
            version = repo.get(f"sentiment@r4/epoch-{epoch}").id.hex
            repo.session.commit(lambda _, v=version: [ops.VersionDelete(version=v)])  # type: ignore[misc]
    return shop


def test_a_dry_run_says_what_would_go(deleted: Path, cli) -> None:  # type: ignore[no-untyped-def]
    said = cli("gc", "--dry-run", "--undo-window", "0")
    assert said.code == 0
    assert "sentiment@r4/epoch-1" in said.out
    assert "would be forgotten" in said.out
    again = cli("gc", "--dry-run", "--undo-window", "0", "--json")
    assert [v["name"] for v in again.json["forgotten"]] == ["r4/epoch-1", "r4/epoch-2"]
    assert again.json["dry"] is True


def test_it_frees_and_then_there_is_nothing_to_free(deleted: Path, cli) -> None:  # type: ignore[no-untyped-def]
    found = cli("gc", "-y", "--undo-window", "0", "--grace", "0", "--json")
    assert found.code == 0
    assert found.json["deleted"] > 0
    assert "Nothing to free." in cli("gc", "-y").out
    assert cli("check").code == 0


def test_within_the_window_nothing_is_forgotten(deleted: Path, cli) -> None:  # type: ignore[no-untyped-def]
    assert not cli("gc", "-y", "--json").json["forgotten"]


def test_a_person_is_asked(deleted: Path, monkeypatch: pytest.MonkeyPatch, cli) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("stemmata.cli.output.Output.ask", lambda *_, **__: False)
    assert cli("gc", "--undo-window", "0").code == 1
    with open_repository(deleted / ".stemmata") as repo:
        states = repo.session.catalog.connection.execute("SELECT state FROM versions").fetchall()
    assert ("forgotten",) not in states


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["text", "json"])
def test_where_nobody_can_be_asked_nothing_is_forgotten(deleted: Path, cli, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    said = cli("gc", "--undo-window", "0", "--grace", "0", *words)
    assert said.code == 2
    assert "--yes" in said.err
    assert cli("restore", "sentiment@r4/epoch-1").code == 0


def test_only_what_was_shown_is_forgotten(deleted: Path) -> None:
    with open_repository(deleted / ".stemmata") as repo:
        shown = {repo.deleted("sentiment")[0].version}
        gone = repo.gc(undo_window=0, grace=0, only=shown).forgotten
        assert {version.id for version in gone} == {version.hex for version in shown}
        assert len(repo.deleted("sentiment")) == 1


@pytest.mark.parametrize("given", ["soon", "-1", "1dd", ""])
def test_a_time_that_is_none(shop: Path, cli, given: str) -> None:  # type: ignore[no-untyped-def]
    said = cli("gc", "--grace", given)
    assert said.code == 2
    assert "--grace" in said.err


def test_repack_says_what_it_gained(shop: Path, cli) -> None:  # type: ignore[no-untyped-def]
    assert "would be looked at" in cli("repack", "--dry-run").out
    assert "became 1" in cli("repack", "sentiment").out
    assert "Nothing to gain." in cli("repack").out
    assert cli("repack", "nobody").code == 3
    assert run(["check"]) == 0
