"""JSON's shape and the three-part error."""

from __future__ import annotations

import json
import math

import pytest

from stemmata.cli.main import run
from stemmata.cli.output import Output, json_safe, report_error
from stemmata.errors import AmbiguousReference, NameTaken


def test_what_json_lacks_becomes_text() -> None:
    found = json_safe({"a": [math.nan, math.inf, -math.inf, 1.5], "big": 2**70, 3: {"x": None}, "t": (True,)})
    assert found == {
        "a": ["NaN", "Infinity", "-Infinity", 1.5],
        "big": str(2**70),
        "3": {"x": None},
        "t": [True],
    }


def test_undecodable_names_do_not_break_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=True).document({"path": "a\udcff"})
    assert json.loads(capsys.readouterr().out) == {"path": "a?"}


def test_an_error_says_what_happened_what_is_untouched_and_what_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report_error(Output(), NameTaken(model="m", name="v1", holder="tag of 123456789abc"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: 'm' already has the name 'v1' (tag of 123456789abc)",
        "       nothing was written",
        "   next: choose another name; tags and version names never move, aliases do",
    ]


def test_with_json_the_error_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(Output(json=True), AmbiguousReference(reference="ab", candidates=["ab1", "ab2"]))
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["kind"] == "ambiguous-reference"
    assert document["error"]["data"] == {"reference": "ab", "candidates": ["ab1", "ab2"]}
    assert "any of" in document["error"]["message"]


def test_hostile_words_in_an_error_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(Output(), NameTaken(model="m\x1b[2J", name="v", holder="[red]x[/red]"))
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nonsense"], ["log", "--nope"], ["show"], ["log", "--limit", "0"]])
def test_what_cannot_be_parsed_is_code_2_with_a_hint(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "--help" in err
    assert "Traceback" not in err


def test_a_typo_is_answered_with_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serach", "m", "x == 1"]) == 2
    assert "'search'" in capsys.readouterr().err


def test_a_parse_error_with_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "--nope", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "usage"
