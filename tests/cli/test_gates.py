"""promote, protect and history, as people and as scripts see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stemmata.log.ops import RefSet
from stemmata.repository import open as open_repository

Cli = Callable[..., Any]


def _row(table: str, head: str) -> str:
    """What stands behind a requirement, with single blanks."""
    line = next(line for line in table.splitlines() if line.startswith(f"{head} "))
    return " ".join(line[len(head) :].split())


def test_a_version_that_passes_is_promoted_and_the_gate_stands_in_the_history(shop: Path, cli: Cli) -> None:
    rules = ("--require", "eval_f1 >= @production.eval_f1 - 0.01", "--require", "eval_loss < 0.5")
    tried = cli("promote", "sentiment@r8/epoch-3", "production", *rules, "--dry-run", "--json")
    assert (tried.code, tried.json["dry_run"], tried.json["gate"]["passed"]) == (0, True, True)
    assert tried.json["from"] == cli("show", "sentiment@production", "--json").json["version"]["id"]
    said = cli("promote", "sentiment@r8/epoch-3", "production", *rules, "--reason", "weekly")
    assert said.code == 0
    assert _row(said.out, rules[1]) == "0.8 >= 0.79 ✓ holds"
    told = cli("history", "sentiment", "production", "--json").json
    move = told["moves"][-1]
    assert (move["why"], move["evidence"]["action"]) == ("weekly", "promote")
    assert [r["expression"] for r in move["evidence"]["gate"]["requirements"]] == [rules[1], rules[3]]
    assert told["protections"] == []
    shown = cli("history", "sentiment", "production").out
    assert "passed: weekly" in shown
    assert "gate of r8/epoch-3" in shown
    assert "eval_loss < 0.5" in shown


def test_a_gate_that_fails_exits_with_8_and_a_table(shop: Path, cli: Cli) -> None:
    before = cli("history", "sentiment", "production", "--json").json
    words = ("promote", "sentiment@r4/epoch-1", "production", "--require", "eval_f1 > 0.9 and nothing > 1")
    for extra in ((), ("--dry-run",)):
        said = cli(*words, *extra)
        assert said.code == 8
        assert _row(said.out, "  eval_f1 > 0.9") == "0.6 > 0.9 ✗ fails"
        assert _row(said.out, "  nothing > 1") == "- > 1 ? fails nothing is missing"
        assert "does not pass the gate of sentiment@production" in said.err
        failed = cli(*words, *extra, "--json")
        assert (failed.code, failed.json["error"]["kind"]) == (8, "gate-failed")
        assert failed.json["error"]["data"]["evidence"]["passed"] is False
    assert cli("history", "sentiment", "production", "--json").json == before


def test_an_expression_that_cannot_be_read_is_shown_with_a_caret(shop: Path, cli: Cli) -> None:
    said = cli("promote", "sentiment@best", "production", "--require", "日本 > @production")
    assert (said.code, said.out) == (2, "")
    lines = said.err.splitlines()
    assert lines[0] == "  日本 > @production"
    assert lines[1] == " " * 9 + "^"
    assert cli("search", "sentiment", "eval_loss <", "--json").json["error"]["data"]["position"] == 12
    long = cli("promote", "sentiment@best", "production", "--require", "a > 1 and " * 15 + "@", "--json")
    assert long.json["error"]["data"]["position"] == 151
    assert long.err.splitlines()[0].startswith("  …")


def test_a_protected_alias_is_told_held_and_freed(shop: Path, cli: Cli) -> None:
    assert "not protected" in cli("protect", "sentiment", "production").out
    made = cli(
        "protect", "sentiment", "production", "--require", "eval_f1 > 0.75", "--why", "audit", "--json"
    )
    wanted = {"model": "sentiment", "name": "production", "protected": True}
    assert made.json == {**wanted, "require": ["eval_f1 > 0.75"], "why": "audit"}
    assert "  eval_f1 > 0.75" in cli("protect", "sentiment", "production").out
    held = cli("alias", "set", "sentiment", "production", "@r8/epoch-1")
    assert held.code == 8
    assert _row(held.out, "eval_f1 > 0.75") == "0.6 > 0.75 ✗ fails"
    refused = cli("save", "out", "sentiment", "--alias", "production", "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (8, "alias-protected")
    assert cli("alias", "set", "sentiment", "production", "@r8/epoch-1", "--force").code == 2
    forced = cli(
        *("alias", "set", "sentiment", "production", "@r8/epoch-1", "--force", "--reason", "fire", "--json")
    )
    assert forced.json["evidence"]["action"] == "forced"
    assert cli("rollback", "sentiment", "production").code == 0
    freed = cli("unprotect", "sentiment", "production", "--why", "over", "--json").json
    assert (freed["protected"], freed["require"]) == (False, [])
    shown = cli("history", "sentiment", "production").out
    for words in ("audit: eval_f1 > 0.75", "forced: fire", "no longer protected", "rollback"):
        assert words in shown
    told = cli("history", "sentiment", "production", "--json").json["protections"]
    assert [(p["protected"], p["why"]) for p in told] == [(True, "audit"), (False, "over")]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("unprotect", "sentiment", "production"), 3, "is not protected"),
        (("unprotect", "nosuch", "production"), 3, "no model named"),
        (("protect", "sentiment", "production", "--lock", "--require", "a > 1"), 2, "stands alone"),
        (("protect", "sentiment", "latest", "--lock"), 2, "selector"),
        (("protect", "sentiment", "production", "--require", "(a > 1"), 2, "')' is expected"),
        (("promote", "sentiment@nosuch", "production"), 3, "names no version"),
        (("promote", "sentiment@best", "v1"), 4, "already has the name"),
        (("promote", "sentiment@best", "new", "--expect", "@production"), 4, "not at"),
    ],
)
def test_mistakes_are_named(shop: Path, cli: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    found = cli(*words)
    assert found.code == code
    assert said in found.err


def test_a_lock_is_told(shop: Path, cli: Cli) -> None:
    assert "locked" in cli("protect", "sentiment", "production", "--lock").out
    found = cli("promote", "sentiment@best", "production")
    assert (found.code, "no gate that could be passed" in found.err) == (8, True)
    assert "no version passes" in cli("history", "sentiment", "production").out


@pytest.mark.parametrize(
    "evidence",
    [
        {"action": [], "gate": 7},
        {"action": "promote", "gate": {"requirements": {"a": 1}}},
        {
            "gate": {
                "requirements": [
                    3,
                    {},
                    {"expression": 4, "comparisons": [5, {"holds": [], "found": {"a": []}}]},
                ]
            }
        },
        {
            "gate": {
                "requirements": [
                    {"comparisons": [{"holds": None, "found": "~nan", "terms": [{"dataset": 1}]}]}
                ]
            }
        },
        {"gate": {"requirements": [{"expression": "\x1b[31m", "reason": "\x1b[31m", "passed": "yes"}]}},
    ],
)
def test_evidence_that_others_wrote_may_be_anything(
    shop: Path, cli: Cli, evidence: dict[str, object]
) -> None:
    with open_repository(shop / ".stemmata") as repo:
        current, best = repo.get("sentiment@production"), repo.get("sentiment@best")
        op = RefSet(
            model="sentiment",
            kind="alias",
            name="production",
            to=best.id.hex,
            expect=current.id.hex,
            evidence=evidence,
        )
        repo.session.commit(lambda _: [op])
    said = cli("history", "sentiment", "production")
    assert (said.code, "\x1b[31m" in said.out) == (0, False)
    assert cli("history", "sentiment", "production", "--json").code == 0


def test_a_trial_assumes_what_the_promotion_would(shop: Path, cli: Cli) -> None:
    words = ("promote", "sentiment@r8/epoch-3", "production", "--expect", "sentiment@r8/epoch-3")
    for extra in ((), ("--dry-run",)):
        said = cli(*words, *extra)
        assert said.code == 4
        assert "as assumed" in said.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("sentiment@r8/epoch-3", "v1"), 4),
        (("sentiment@r8/epoch-3", "latest"), 2),
        (("sentiment@r8/epoch-3", "production", "--require", "eval_f1 > 0.99"), 8),
        (("sentiment@r8/epoch-3", "production", "--require", "eval_f1 > 0.99", "--force"), 2),
        (("sentiment@r8/epoch-3", "production", "--require", "eval_f1 > 0.99", "--force", "--why", "x"), 0),
        (("sentiment@r8/epoch-3", "held"), 8),
        (("sentiment@r8/epoch-3", "held", "--force", "--why", "x"), 0),
        (("sentiment@r8/epoch-3", "STRASSE", "--expect", "none"), 4),
        (("sentiment@r8/epoch-3", "STRASSE", "--expect", "@straße"), 0),
    ],
)
def test_a_trial_ends_as_the_promotion_does(shop: Path, cli: Cli, words: tuple[str, ...], code: int) -> None:
    cli("alias", "set", "sentiment", "straße", "@production")
    cli("protect", "sentiment", "held", "--lock")
    before = cli("alias", "list", "--json").json
    tried = cli("promote", *words, "--dry-run", "--json")
    assert cli("alias", "list", "--json").json == before
    done = cli("promote", *words, "--json")
    assert (tried.code, done.code) == (code, code)
    if code:
        assert tried.json["error"]["message"] == done.json["error"]["message"]
    else:
        kept = {key: done.json[key] for key in ("model", "name", "from", "to", "gate")}
        assert tried.json == {**kept, "dry_run": True}


def test_a_reason_to_protect_goes_with_what_it_is_for(shop: Path, cli: Cli) -> None:
    assert cli("protect", "sentiment", "production", "--why", "because").code == 2
