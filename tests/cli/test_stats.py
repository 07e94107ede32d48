"""`stemmata stats`: the figures for people and for programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stemmata.cli.bars import bar, shares

Cli = Callable[..., Any]


def test_stats_for_people(shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = cli("stats")
    assert said.code == 0
    first = said.out.splitlines()[0]
    assert " stored for " in first
    assert "6 versions" in first
    codecs = ("codecs", "planes", "bytes by significance")
    places = ("in 6 packs", "log and bundles", "a cache")
    for words in ("runs", "r4", "r8", "sentiment@r8/epoch-3", *codecs, *places):
        assert words in said.out
    assert max(map(len, said.out.splitlines())) <= 80


def test_stats_for_programs(shop: Path, cli: Cli) -> None:
    said = cli("stats", "sentiment", "--json").json
    assert (said["model"], said["versions"], said["packs"]) == ("sentiment", 6, 6)
    took = sum(said[f"saved_by_{what}"] for what in ("dedup", "deltas", "casts", "compression"))
    assert said["files"] == took + said["stored"] - said["beside"]
    assert {run["run"] for run in said["runs"]} == {"r4", "r8"}
    assert set(said["places"]) == {"packs", "log", "bundles", "checkpoints", "catalog", "checkouts"}


def test_stats_of_nothing(tmp_path: Path, cli: Cli) -> None:
    cli("init", str(tmp_path / "new"))
    said = cli("-R", str(tmp_path / "new"), "stats")
    assert (said.code, said.out) == (0, "")
    assert "no versions yet" in said.err
    assert cli("-R", str(tmp_path / "new"), "stats", "other").code == 3


def test_stats_name_what_cannot_be_read(shop: Path, cli: Cli) -> None:
    pack = next((shop / ".stemmata" / "packs").rglob("*.pack"))
    pack.chmod(0o644)
    pack.write_bytes(b"no pack")
    said = cli("stats")
    assert said.code == 0
    assert f"pack {pack.stem}" in said.err
    assert "stemmata check" in said.err


@pytest.mark.parametrize(
    ("part", "whole", "drawn"), [(5, 10, "█████░░░░░"), (10, 10, "██████████"), (0.1, 5, "▏░░░░"), (0, 0, "")]
)
def test_a_bar_shows_the_part(part: float, whole: float, drawn: str) -> None:
    assert bar(part, whole, 10, 10, "green").plain == drawn
    assert bar(part, whole, 0, 10, "green").plain == ""


def test_shares_fill_the_width_and_show_what_is_small() -> None:
    drawn = shares([(1000, "a", ""), (1, "b", ""), (0, "c", ""), (500, "d", "")], 30).plain
    assert len(drawn) == 30
    assert drawn.count("b") == 1
    assert "c" not in drawn
    assert drawn.count("a") > drawn.count("d") > 1
