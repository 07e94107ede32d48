"""Every command, as people and as scripts see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from makers import adapter_folder, contents
from stemmata import checking

Cli = Callable[..., Any]


# --- init and where the repository is -------------------------------------------------------------


def test_init_makes_a_repository_that_is_found_from_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEMMATA_REPO", raising=False)
    assert cli("init").code == 0
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    said = cli("models", "--json")
    assert (said.code, said.json) == (0, {"models": []})


def test_init_again_is_refused_and_leaves_all_as_it_is(tmp_path: Path, cli: Cli) -> None:
    assert cli("init", tmp_path / "repo").code == 0
    before = contents(tmp_path / "repo")
    again = cli("init", tmp_path / "repo", "--json")
    assert (again.code, again.json["error"]["kind"]) == (4, "repository-exists")
    assert contents(tmp_path / "repo") == before


def test_without_a_repository_the_error_names_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEMMATA_REPO", raising=False)
    for command in (["log"], ["check"], ["show", "a@b"]):
        said = cli(*command)
        assert said.code == 3
        assert "stemmata init" in said.err


def test_the_option_comes_before_the_variable_and_the_variable_before_the_folder(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    cli("init", tmp_path / "one")
    cli("init", tmp_path / "two")
    assert len(cli("models", "--json").json["models"]) == 1
    monkeypatch.setenv("STEMMATA_REPO", str(tmp_path / "one"))
    assert cli("models", "--json").json["models"] == []
    assert len(cli("models", "--json", "-R", shop / ".stemmata").json["models"]) == 1
    assert len(cli("-R", shop / ".stemmata", "--json", "models").json["models"]) == 1
    assert cli("-R", shop / ".stemmata", "models", "--json", "-R", tmp_path / "two").json["models"] == []


# --- save and checkout ----------------------------------------------------------------------------


def test_what_is_saved_comes_back_byte_for_byte(shop: Path, tmp_path: Path, cli: Cli) -> None:
    source = adapter_folder(tmp_path / "new", 7)
    (tmp_path / "config.json").write_text('{"optim": {"name": "adamw"}, "seed": 3}')
    said = cli(
        *("save", source, "sentiment", "--name", "mine/one", "-m", "by hand", "--run", "mine"),
        *("--metric", "eval_loss=0.25", "--metric", "odd=nan", "--config", "lr=0.1", "--config", "flag=true"),
        *("--config", tmp_path / "config.json", "--parent", "sentiment@production"),
        *("--label", "team=x", "--alias", "staging", "--step", "5", "--epoch", "0.5", "--json"),
    )
    assert said.code == 0
    document = said.json
    version = document["version"]
    assert version["metrics"] == {"eval_loss": 0.25, "odd": "NaN"}
    assert version["config"]["lr"] == 0.1
    assert version["config"]["flag"] is True
    assert version["config"]["optim.name"] == "adamw"
    assert (version["step"], version["epoch"], version["run"]) == (5, 0.5, "mine")
    assert version["labels"] == {"team": "x"}
    assert version["aliases"] == ["staging"]
    assert version["parents"] == [cli("show", "sentiment@production", "--json").json["version"]["id"]]
    assert document["bytes"]["total"] >= version["bytes"] > 0
    assert cli("checkout", "sentiment@staging", "-o", tmp_path / "back").code == 0
    assert contents(tmp_path / "back") == contents(source)


def test_versions_of_a_run_saved_by_hand_form_a_line(shop: Path, cli: Cli) -> None:
    first = cli("save", "out", "toy", "--run", "r", "--name", "r/1", "--json").json["version"]
    adapter_folder(Path("out"), 99)
    second = cli("save", "out", "toy", "--run", "r", "--name", "r/2", "--json").json["version"]
    assert second["parents"] == [first["id"]]


def test_what_is_left_out_is_said(shop: Path, cli: Cli) -> None:
    source = adapter_folder(shop / "trainer", 5)
    (source / "checkpoint-50").mkdir()
    (source / "checkpoint-50" / "optimizer.pt").write_bytes(b"state")
    (source / "runs").mkdir()
    (source / "runs" / "events").write_bytes(b"log")
    said = cli("save", source, "sentiment")
    assert said.code == 0
    assert "left out checkpoint-50" in said.out
    assert "left out runs" in said.out
    told = cli("save", source, "sentiment", "--include", "runs", "--include", "runs/**", "--json").json
    assert [row["path"] for row in told["left_out"]] == ["checkpoint-50"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--metric", "loss"], "'loss' is not key=value"),
        (["--metric", "loss=low"], "'low' is not a number"),
        (["--label", "a=1", "--label", "a=2"], "given twice"),
        (["--config", "nowhere.json"], "neither key=value nor a readable JSON file"),
    ],
)
def test_words_that_cannot_be_read_save_nothing(shop: Path, cli: Cli, words: list[str], hint: str) -> None:
    before = cli("log", "--json").json["total"]
    said = cli("save", "out", "sentiment", *words)
    assert said.code == 2
    assert hint in said.err
    assert cli("log", "--json").json["total"] == before


def test_a_taken_name_is_a_conflict_that_says_who_has_it(shop: Path, cli: Cli) -> None:
    said = cli("save", "out", "sentiment", "--name", "r4/epoch-1", "--json")
    assert (said.code, said.json["error"]["kind"]) == (4, "name-taken")


def test_a_folder_that_holds_something_is_refused_unless_forced(shop: Path, cli: Cli) -> None:
    (shop / "there").mkdir()
    (shop / "there" / "mine.txt").write_text("mine")
    (shop / "there" / "adapter_config.json").write_text("old")
    refused = cli("checkout", "sentiment@v1", "-o", "there")
    assert refused.code == 8
    assert "--force" in refused.err
    assert (shop / "there" / "adapter_config.json").read_text() == "old"
    assert cli("checkout", "sentiment@v1", "-o", "there", "--force", "-y").code == 0
    assert (shop / "there" / "mine.txt").read_text() == "mine"
    assert json.loads((shop / "there" / "adapter_config.json").read_text())["r"] == 8


# --- looking --------------------------------------------------------------------------------------


def test_log_lists_the_newest_first_with_metrics_and_badges(shop: Path, cli: Cli) -> None:
    lines = cli("log", "sentiment").out.splitlines()
    assert lines[0].split()[:4] == ["id", "version", "epoch", "step"]
    assert [line.split()[1] for line in lines[1:4]] == ["r8/epoch-3", "r8/epoch-2", "r8/epoch-1"]
    (production,) = (line for line in lines if "[production]" in line)
    assert "r4/epoch-3" in production
    assert "#v1" in lines[3]
    assert "eval_loss" in lines[0]
    assert "grad_norm" not in lines[0]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_log_never_wraps(shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = cli("log").out.splitlines()
    assert len(lines) == 7
    assert max(map(len, lines)) <= width
    assert all("eval_loss" in line for line in lines[:1]) or width < 60


def test_log_in_a_pipe_cuts_nothing(shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    out = cli("log").out
    assert "…" not in out
    assert "rank 8, epoch 3" in out
    assert "\x1b" not in out


def test_log_limits_filters_and_counts(shop: Path, cli: Cli) -> None:
    few = cli("log", "sentiment", "--limit", "2")
    assert len(few.out.splitlines()) == 3
    assert "4 older versions not shown" in few.err
    document = cli("log", "sentiment", "--run", "r4", "--limit", "1", "--json").json
    assert document["total"] == 3
    assert [v["name"] for v in document["versions"]] == ["r4/epoch-3"]
    assert "grad_norm" in cli("log", "--metric", "grad_norm").out


def test_a_log_of_the_past_says_which_moment_it_took(shop: Path, cli: Cli) -> None:
    said = cli("log", "sentiment", "--at", "2020-01-01T00:00:00Z")
    assert said.out == ""
    assert "as of 2020-01-01 00:00:00 UTC" in said.err
    assert cli("log", "--at", "2020-01-01T00:00:00Z", "--json").json["at"] == "2020-01-01T00:00:00.000000Z"
    assert cli("log", "--at", "florp").code == 2


def test_what_is_told_of_the_past_is_without_what_was_added_since(shop: Path, cli: Cli) -> None:
    moment = datetime.now(UTC).isoformat()
    assert cli("annotate", "sentiment@r8/epoch-2", "--metric", "rouge_l=1").code == 0
    assert "rouge_l" in cli("show", "sentiment@r8/epoch-2").out
    for words in (
        ("show", "sentiment@r8/epoch-2"),
        ("show", f"sentiment@r8/epoch-2@{{{moment}}}"),
        ("log", "sentiment"),
        ("diff", "sentiment@r8/epoch-1", "sentiment@r8/epoch-2"),
    ):
        for more in ((), ("--json",)):
            when = ("--at", moment) if "{" not in words[1] else ()
            said = cli(*words, *when, *more)
            assert said.code == 0, said.err
            assert "rouge_l" not in said.out


def test_show_tells_a_version_whole(shop: Path, cli: Cli) -> None:
    out = cli("show", "sentiment@r8/epoch-2", "--files", "--tensors").out
    for words in (
        "rank 8, epoch 2",
        "epoch 2, step 100",
        "by ann",
        "r=8",
        "eval_f1",
        "learning_rate",
        "0.0002",
    ):
        assert words in out
    assert "adapter_model.safetensors" in out
    assert "q_proj.lora_A.weight" in out
    assert "sentiment@r8/epoch-1" in out


def test_show_as_json_has_lora_files_and_tensors(shop: Path, cli: Cli) -> None:
    document = cli("show", "sentiment@r8/epoch-2", "--tensors", "--json").json
    assert document["lora"]["rank"] == 8
    assert {f["path"] for f in document["files"]} == {"adapter_config.json", "adapter_model.safetensors"}
    assert [8, 16] in [t["shape"] for t in document["tensors"]]
    assert "command" in document["provenance"]


def test_an_unknown_reference_is_code_3_with_what_is_near(shop: Path, cli: Cli) -> None:
    said = cli("show", "sentiment@prodution")
    assert said.code == 3
    assert "sentiment@production" in said.err
    assert cli("show", "sentimant").code == 3
    assert cli("show", "sentiment@@").code == 2


def test_diff_tells_what_differs_and_counts_the_rest(shop: Path, cli: Cli) -> None:
    out = cli("diff", "sentiment@r4/epoch-3", "sentiment@r8/epoch-3").out
    words = " ".join(out.split())
    assert "eval_loss 0.1429 → 0.0909 ▼ 0.0519 (36.4%) better" in words
    assert "rank 4 → 8" in words
    assert "lora.r 4 → 8" in words
    assert "run r4 → r8" in words
    assert "q_proj.lora_A.weight ≠ F32 4×16 → F32 8×16" in words
    document = cli("diff", "sentiment@r4/epoch-3", "sentiment@r8/epoch-3", "--json").json
    assert document["lora"]["changed"]["rank"] == {"a": 4, "b": 8}


def test_diff_of_a_version_with_itself(shop: Path, cli: Cli) -> None:
    assert "the same version" in cli("diff", "sentiment@v1", "sentiment@r8/epoch-1").out


def test_best_by_declared_and_by_named_metric(shop: Path, cli: Cli) -> None:
    assert cli("best", "sentiment", "--json").json["version"]["name"] == "r8/epoch-3"
    named = cli("best", "sentiment", "--metric", "eval_f1", "--run", "r4", "--json").json
    assert (named["version"]["name"], named["direction"], named["value"]) == ("r4/epoch-3", "max", 0.8)
    low = cli("best", "sentiment", "--metric", "eval_f1", "--direction", "min")
    assert "lowest eval_f1 0.6" in low.out
    assert cli("best", "sentiment", "--metric", "eval_f1", "--declare").code == 0
    assert cli("models", "--json").json["models"][0]["metric"] == "eval_f1"
    assert cli("best", "sentiment", "--metric", "nope").code == 3
    assert cli("best", "sentiment", "--direction", "up").code == 2


def test_search_filters_sorts_and_limits(shop: Path, cli: Cli) -> None:
    found = cli(
        "search", "sentiment", "lora.r == 8 and eval_loss < 0.11", "--sort", "eval_loss", "--json"
    ).json
    assert [v["name"] for v in found["versions"]] == ["r8/epoch-3", "r8/epoch-2"]
    found = cli("search", "-", "epoch >= 2", "--sort", "eval_loss", "--desc", "--limit", "1", "--json").json
    assert [v["name"] for v in found["versions"]] == ["r4/epoch-2"]
    every = cli("search", "-", "epoch >= 2", "--json").json
    assert found["total"] == every["total"] == len(every["versions"]) > 1
    more = f"{every['total'] - 1} more versions not shown; raise --limit"
    assert more in cli("search", "-", "epoch >= 2", "--limit", "1").err
    assert "not shown" not in cli("search", "-", "epoch >= 2", "--limit", "9").err
    assert cli("search", "sentiment", "lora.r = = 8").code == 2
    assert "no version matches" in cli("search", "sentiment", "lora.r == 5").err


# --- names ----------------------------------------------------------------------------------------


def test_an_alias_moves_and_goes_back_and_its_history_tells(shop: Path, cli: Cli) -> None:
    moved = cli("alias", "set", "sentiment", "production", "@r8/epoch-2", "--why", "try")
    assert "r4/epoch-3" in moved.out
    assert "r8/epoch-2" in moved.out
    assert "stemmata rollback sentiment production" in moved.err
    assert cli("rollback", "sentiment", "production", "--json").json["rollback"] is True
    assert cli("rollback", "sentiment", "production", "--to", "@v1").code == 0
    moves = cli("history", "sentiment", "production", "--json").json["moves"]
    told = cli("history", "SENTIMENT", "Production", "--json").json
    assert (told["model"], told["name"], told["moves"]) == ("sentiment", "production", moves)
    assert [m["rollback"] for m in moves] == [False, False, True, False, True, True]
    assert moves[0]["from"] is None
    assert moves[3]["why"] == "try"
    shown = cli("history", "sentiment", "production").out
    assert shown.splitlines()[1].split()[3:6] == ["r4/epoch-3", "↩", "r8/epoch-1"]
    (alias,) = cli("alias", "list", "--json").json["aliases"]
    assert (alias["name"], alias["version"]) == ("production", "r8/epoch-1")


def test_an_alias_moves_only_from_where_it_is_expected(shop: Path, cli: Cli) -> None:
    said = cli("alias", "set", "sentiment", "production", "@v1", "--expect", "@r8/epoch-3", "--json")
    assert (said.code, said.json["error"]["kind"]) == (4, "alias-moved")
    assert cli("alias", "set", "sentiment", "new", "@v1", "--expect", "none").code == 0


def test_a_tag_never_moves(shop: Path, cli: Cli) -> None:
    assert cli("tag", "sentiment", "v2", "sentiment@r4/epoch-1").code == 0
    assert cli("tag", "sentiment", "v2", "@r4/epoch-2").code == 4
    assert cli("show", "sentiment@v2", "--json").json["version"]["name"] == "r4/epoch-1"


def test_annotations_and_labels_show_as_the_versions_own(shop: Path, cli: Cli) -> None:
    cli("annotate", "sentiment@v1", "--metric", "human=4.5", "--note", "fine\x1b[2J", "--label", "a=1")
    cli("label", "sentiment@v1", "stage=gold", "--remove", "a")
    version = cli("show", "sentiment@v1", "--json").json["version"]
    assert version["metrics"]["human"] == 4.5
    assert version["labels"] == {"stage": "gold"}
    out = cli("show", "sentiment@v1").out
    assert "added later" in out
    assert "fine" in out
    assert "\x1b" not in out
    assert cli("annotate", "sentiment@v1").code == 2


def test_what_a_policy_marked_is_a_quiet_word_in_the_lists_and_a_label_in_json(shop: Path, cli: Cli) -> None:
    cli("label", "sentiment@r8/epoch-1", "deletable=keep=1")
    cli("label", "sentiment@r8/epoch-2", "deletable=never")  # somebody's own, of no policy
    lines = [line for line in cli("log", "sentiment").out.splitlines() if " deletable" in line]
    assert len(lines) == 1
    assert "r8/epoch-1 #v1 deletable" in lines[0]
    assert "sentiment@r8/epoch-1 #v1 deletable" in cli("show", "sentiment@v1").out.splitlines()[0]
    assert cli("show", "sentiment@v1", "--json").json["version"]["labels"] == {"deletable": "keep=1"}
    found = cli("search", "sentiment", "label.deletable is not none", "--json").json
    assert found["total"] == 2


def test_models_are_listed_with_what_they_have(shop: Path, cli: Cli) -> None:
    (model,) = cli("models", "--json").json["models"]
    assert (model["name"], model["versions"], model["newest"]["name"]) == ("sentiment", 6, "r8/epoch-3")
    assert list(model["aliases"]) == ["production"]
    assert "[production]" in cli("models").out


@pytest.mark.parametrize(
    ("kind", "one", "several"),
    [
        ("void", "1 log entry without effect", "2 log entries without effect"),
        ("statistics", "1 table of statistics that is lost", "2 tables of statistics that are lost"),
        ("unread", "1 pack that a damaged entry may name", "2 packs that a damaged entry may name"),
        ("aside", "1 damaged file that was put aside", "2 damaged files that were put aside"),
    ],
)
def test_check_speaks_of_one_note_and_of_several(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, kind: str, one: str, several: str
) -> None:
    notes: list[checking.Note] = []
    monkeypatch.setattr(checking, "check", lambda *_, **__: checking.Report(notes=notes))
    for said in (one, several):
        notes.append(checking.Note(kind, "where", "why"))
        assert f"note: {said}\n" in cli("check").out
