"""What `show` tells of a version that was made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stemmata.repository import open as open_repository
from stemmata.reproducing import judge, keep


@pytest.mark.parametrize("command", [["reproduce"], ["repeat", "--set", "rate=2"]])
def test_a_plan_asks_for_no_other_time_than_the_run_takes(
    shop: Path, cli: Callable[..., Any], command: list[str]
) -> None:
    for seconds in ("-3", "0", "nan", "inf"):
        told = cli(command[0], "sentiment@v1", *command[1:], "--dry-run", "--timeout", seconds)
        assert told.code == 2
        assert "no number of seconds" in told.err


def test_show_tells_the_newest_verdict_in_one_line(shop: Path, cli: Callable[..., Any]) -> None:
    assert "reproduced" not in cli("show", "sentiment@v1").out
    assert cli("show", "sentiment@v1", "--json").json["reproductions"] == []
    with open_repository(shop / ".stemmata") as repo:
        one, other = repo["sentiment@v1"], repo["sentiment@r8/epoch-2"]
        for copy, why in ((other, "first"), (one, "second")):
            keep(one, judge(one, copy, before=one.captured(), after=copy.captured()), why=why)
    (line,) = [each for each in cli("show", "sentiment@v1").out.splitlines() if "reproduced" in each]
    assert line.endswith(": bit-identical  2 times in all")
    told = cli("show", "sentiment@v1", "--json").json["reproductions"]
    assert [(each["verdict"], each["why"], each["object"]) for each in told] == [
        ("diverged", "first", "reproduction#1"),
        ("bit-identical", "second", "reproduction#2"),
    ]
    assert told[0]["largest"] > 0
