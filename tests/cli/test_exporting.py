"""`show --card`, `--script`, `--requirements`, and searching by lineage, as typed."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def test_each_export_is_printed_and_written_alike(shop: Path, cli: Cli) -> None:
    for option in ("--card", "--script", "--requirements"):
        printed = cli("show", "sentiment@production", option)
        assert printed.code == 0
        assert cli("show", "sentiment@production", option, "-o", "file.txt").out == ""
        assert Path("file.txt").read_text() == printed.out
        document = cli("show", "sentiment@production", option, "-o", "other.txt", "--json").json
        assert document["text"] == printed.out == Path("other.txt").read_text()
        assert (document["export"], document["written"]) == (option[2:], "other.txt")
    assert printed.out.startswith("# sentiment@")
    assert cli("show", "sentiment@production", "--card").out.startswith("---\n")
    ast.parse(cli("show", "sentiment@production", "--script").out)
    # Nothing else was left in the folder.
    assert sorted(path.name for path in shop.iterdir()) == [".stemmata", "file.txt", "other.txt", "out"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--card", "--script"], "one at a time"),
        (["-o", "x"], "name one of them"),
        (["--card", "--tensors"], "--tensors: it says nothing beside --card"),
        (["--card", "-o", "out"], "out/README.md"),
        (["--card", "-o", "nosuch/x"], "cannot be written"),
    ],
)
def test_what_does_not_go_together_is_refused(shop: Path, cli: Cli, options: list[str], said: str) -> None:
    found = cli("show", "sentiment@production", *options)
    assert found.code == 2
    assert said in " ".join(found.err.split())
    assert found.out == ""


def test_searching_by_where_versions_come_from(shop: Path, cli: Cli) -> None:
    found = cli("search", "--descends-from", "sentiment@r8/epoch-1", "--json").json
    assert {v["name"] for v in found["versions"]} == {"r8/epoch-2", "r8/epoch-3"}
    both = cli("search", "sentiment", "epoch < 3", "--descends-from", "sentiment@r8/epoch-1", "--json").json
    assert [v["name"] for v in both["versions"]] == ["r8/epoch-2"]
    assert cli("search", "--from-base", "toy", "--json").json["total"] == 6
    none = cli("search", "--trained-on", "nothing")
    assert (none.code, none.out) == (0, "")
    assert "no version matches" in none.err
    assert cli("search", "--descends-from", "sentiment@nosuch").code == 3
    asked = cli("search", "sentiment")
    assert asked.code == 2
    assert "say what must hold of a version" in " ".join(asked.err.split())
