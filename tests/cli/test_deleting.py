"""delete, restore, retain, redact and log --deleted, as people and as scripts see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stemmata.cli.output import Output
from stemmata.repository import open as open_repository

Cli = Callable[..., Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody at the terminal who says no; what was asked."""
    questions: list[str] = []

    def ask(_: Output, question: str, *, undoable: bool = True) -> bool:
        questions.append(question)
        return False

    monkeypatch.setattr(Output, "ask", ask)
    return questions


def left(cli: Cli) -> list[str]:
    return [v["name"] for v in cli("log", "sentiment", "--json").json["versions"]]


def test_delete_shows_what_goes_and_restore_undoes_it(shop: Path, cli: Cli) -> None:
    before = left(cli)
    dry = cli("delete", "sentiment@r4/epoch-2", "sentiment@r8/epoch-2", "--dry-run")
    assert dry.code == 0
    assert "sentiment@r8/epoch-3" in dry.out  # the child that keeps its link
    assert "2 versions would be deleted" in dry.err
    assert left(cli) == before
    done = cli("delete", "sentiment@r4/epoch-2", "sentiment@r8/epoch-2", "--why", "diverged", "--json").json
    assert [v["name"] for v in done["versions"]] == ["r4/epoch-2", "r8/epoch-2"]
    assert done["versions"][1]["children"] == ["sentiment@r8/epoch-3"]
    assert set(before) - set(left(cli)) == {"r4/epoch-2", "r8/epoch-2"}
    listed = cli("log", "--deleted", "--json").json
    assert (listed["total"], {d["why"] for d in listed["deleted"]}) == (2, {"diverged"})
    assert {d["entry"] for d in listed["deleted"]} == {done["entry"]}
    shown = cli("log", "sentiment", "--deleted").out
    assert "diverged" in shown
    assert "restorable until" in shown
    assert "which was deleted" in cli("show", "sentiment@r8/epoch-3").out
    refused = cli("show", "sentiment@r8/epoch-3~1", "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (3, "version-not-found")
    assert "stemmata restore" in refused.err
    back = cli("restore", "--entry", str(done["entry"]), "--json").json
    assert {v["name"] for v in back["versions"]} == {"r4/epoch-2", "r8/epoch-2"}
    assert left(cli) == before
    assert "nothing that was deleted" in cli("log", "--deleted").err
    for none in ("1", "-1", "9" * 30):
        assert cli("restore", "--entry", none).code == 3


def test_an_answer_of_no_changes_nothing_and_yes_is_not_asked(shop: Path, cli: Cli, asked: list[str]) -> None:
    before = left(cli)
    asks = [
        ("delete", "sentiment@r4/epoch-2"),
        ("retain", "sentiment", "--last", "1"),
        ("redact", "sentiment@r4/epoch-2", "command"),
    ]
    for words in asks:
        assert cli(*words).code == 1
    assert len(asked) == 3
    assert left(cli) == before
    assert cli("retain", "sentiment", "--show", "--json").json["policy"] is None
    assert cli("delete", "sentiment@r4/epoch-2", "-y").code == 0
    assert len(asked) == 3
    assert len(left(cli)) == len(before) - 1


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["delete", "sentiment@production"], 4, "version-in-use"),
        (["delete", "sentiment@v1"], 4, "version-in-use"),
        (["delete", "sentiment@nothing"], 3, "version-not-found"),
        (["delete"], 2, "invalid-argument"),
        (["delete", "sentiment@best", "--deletable", "sentiment"], 2, "invalid-argument"),
        (["delete", "--deletable", "nothing"], 3, "model-not-found"),
        (["restore", "sentiment@best"], 4, "not-deleted"),
        (["restore"], 2, "invalid-argument"),
        (["retain", "sentiment"], 2, "invalid-argument"),
        (["retain", "nothing", "--last", "1"], 3, "model-not-found"),
        (["retain", "sentiment", "--best", "2:nope"], 8, "nothing-kept"),
        (["retain", "sentiment", "--every", "week"], 2, "invalid-argument"),
        (["retain", "sentiment", "--show", "--last", "1"], 2, "invalid-argument"),
        (["redact", "sentiment@best", "nope"], 3, "not-found"),
        (["log", "--deleted", "--run", "r4"], 2, "invalid-argument"),
        (["log", "--deleted", "--html", "page.html"], 2, "invalid-argument"),
        (["log", "--deleted", "--curves"], 2, "invalid-argument"),
    ],
)
def test_what_cannot_be_is_refused_by_its_kind(
    shop: Path, cli: Cli, words: list[str], code: int, kind: str
) -> None:
    before = left(cli)
    said = cli(*words, "--json")
    assert (said.code, said.json["error"]["kind"]) == (code, kind)
    assert left(cli) == before


def test_retain_says_why_each_goes_or_stays_and_keeps_its_policy(shop: Path, cli: Cli) -> None:
    rules = ("--last", "1", "--best", "1:eval_f1")
    dry = cli("retain", "sentiment", *rules, "--dry-run")
    for words in (
        "one of the last 1",
        "best 1 by highest eval_f1",
        "alias production",
        "tag v1",
        "not of the",
    ):
        assert words in dry.out
    assert "would be deleted" in dry.err
    assert cli("retain", "sentiment", "--show", "--json").json["policy"] is None
    told = cli("retain", "sentiment", *rules, "--json").json
    stays = {v["name"] for v in told["versions"] if not v["goes"]}
    assert set(left(cli)) == stays
    assert told["policy"] == {"last": 1, "best": ["1:eval_f1"]}
    again = cli("retain", "sentiment", "-y")
    assert (again.code, "nothing to delete" in again.err) == (0, True)
    assert cli("retain", "sentiment", "--undo-window", "30d", "--json").json["undo_window"] == 30 * 86400
    assert "keeps last 1, best 1:eval_f1" in cli("retain", "sentiment", "--show").out
    assert cli("retain", "sentiment", "--clear").code == 0
    assert cli("retain", "sentiment", "--show", "--json").json["policy"] is None


def test_delete_takes_what_a_run_marked(shop: Path, cli: Cli) -> None:
    for name in ("r4/epoch-1", "r4/epoch-2", "r8/epoch-1"):
        cli("label", f"sentiment@{name}", "deletable=keep=1")
    gone = cli("delete", "--deletable", "sentiment", "--json").json["versions"]
    assert {v["name"] for v in gone} == {"r4/epoch-1", "r4/epoch-2"}  # the other one has a tag
    assert "nothing to delete" in cli("delete", "--deletable", "sentiment").err


def test_redact_leaves_a_tombstone_that_show_and_diff_tell(shop: Path, cli: Cli) -> None:
    with open_repository(shop / ".stemmata") as repo:
        kinds = sorted(repo["sentiment@r4/epoch-1"].record.provenance)
    kind = kinds[0]
    reference = "sentiment@r4/epoch-1"
    assert f"Would redact {kind}" in cli("redact", reference, kind, "--dry-run").out
    assert cli("show", reference, "--json").json["redacted"] == []
    said = cli("redact", reference, kind, "--why", "a token", "-y")
    assert said.code == 0
    assert "stemmata gc" in said.err
    assert "redacted on" in cli("show", reference).out
    (stone,) = cli("show", reference, "--json").json["redacted"]
    assert (stone["item"], stone["why"]) == (kind, "a token")
    assert "redacted on" in cli("diff", reference, "sentiment@r8/epoch-1").out
    again = cli("redact", reference, kind, "--json")
    assert (again.code, again.json["error"]["kind"]) == (8, "redacted")


def test_where_nobody_can_be_asked_nothing_is_redacted(shop: Path, cli: Cli) -> None:
    said = cli("redact", "sentiment@r4/epoch-1", "command")
    assert said.code == 2
    assert "--yes" in said.err
    assert cli("show", "sentiment@r4/epoch-1", "--json").json["redacted"] == []
