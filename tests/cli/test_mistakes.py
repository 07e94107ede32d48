"""What people type wrongly: every mistake is named, and none looks like an empty result."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from makers import adapter_folder
from stemmata.repository import open as open_repository
from stemmata.storage import publish

Cli = Callable[..., Any]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["log", "sentiment", "--run", "r9"], 3, "its runs: r4, r8"),
        (["log", "--run", "nosuch"], 3, "its runs: r4, r8"),
        (["best", "sentiment", "--run", "nosuch"], 3, "its runs: r4, r8"),
        (["best", "sentiment", "--declare"], 2, "--metric"),
        (["label", "sentiment"], 2, "KEY=VALUE"),
        (["annotate", "sentiment"], 2, "next: stemmata annotate --help"),
        (["rollback", "sentiment", "nosuch"], 3, "no alias of that name ever was"),
        (["show", "sentiment@r4/epoch-1~1"], 3, "it has no parent"),
        (["log", "-n", "0"], 2, "it must be at least 1\n"),
        (["log", "-n", "many"], 2, "this is no whole number\n"),
        (["save", ".", "sentiment", "--alias", "a", "--alias", "b"], 2, "one alias moves with a save"),
        (["save", ".", "sentiment", "--config", "nosuch.json"], 2, "JSON file (No such file"),
        (["show", "sentiment@r4/epoch-1", "--at", "2020-01-01"], 3, "name a later time, or leave it out"),
        (["show", "sentiment@v1", "--at", "2020-01-01"], 3, "it was tagged at 20"),
        (["show", "sentiment@production", "--at", "2020-01-01"], 3, "stemmata history sentiment production"),
        (["watch", "", "sentiment", "--once", "--interval", "0.05"], 2, "OUTPUT_DIR: it is empty"),
    ],
)
def test_the_mistake_is_named(shop: Path, cli: Cli, words: list[str], code: int, said: str) -> None:
    found = cli(*words)
    assert found.code == code
    assert said in found.err
    assert not found.out


def test_names_that_nothing_has_are_told_from_an_empty_result(shop: Path, cli: Cli) -> None:
    typo = cli("search", "sentiment", "eval_los < 3")
    assert (typo.code, typo.out) == (0, "")
    assert "no version has 'eval_los'; did you mean eval_loss" in typo.err
    nothing = cli("search", "sentiment", "eval_loss > 3 and alias == 'staging'")
    assert nothing.err == "no version matches\n"
    assert (
        "not sorted: no version has 'eval_lost'"
        in cli("search", "-", "eval_loss < 3", "--sort", "eval_lost").err
    )
    assert "no version has the metric 'f2'" in cli("log", "--metric", "f2").err


def test_a_runs_name_is_refused_as_one(shop: Path, cli: Cli, tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "more", seed=1, rank=4)
    said = cli("save", str(folder), "sentiment", "--run", "my run")
    assert (said.code, "'my run'" in said.err) == (2, True), said.err
    assert "reference" not in said.err
    long = cli("save", str(folder), "sentiment", "--run", "r" * 245)
    assert (long.code, "give the version a name" in long.err) == (2, True), long.err
    assert cli("save", str(folder), "sentiment", "--run", "r" * 245, "--name", "x").code == 0


def test_a_direction_is_declared_of_the_metric_that_was_found(shop: Path, cli: Cli, tmp_path: Path) -> None:
    for name, loss in (("a", 0.1), ("b", 0.5)):
        folder = adapter_folder(tmp_path / name, seed=3, rank=4)
        assert cli("save", str(folder), "other", "--name", name, "--metric", f"loss={loss}").code == 0
    assert "lowest loss" in cli("best", "other").out
    assert cli("best", "other", "--direction", "max", "--declare").code == 0
    assert "highest loss" in cli("best", "other").out


def test_a_mistyped_metric_is_not_declared(shop: Path, cli: Cli) -> None:
    before = cli("models", "--json").json
    assert cli("best", "sentiment", "--metric", "eval_los", "--declare").code == 3
    assert cli("models", "--json").json == before
    assert cli("best", "sentiment", "--metric", "eval_f1", "--declare", "--json").json["direction"] == "max"
    assert cli("models", "--json").json["models"][0]["metric"] == "eval_f1"


def test_a_trainers_folder_without_a_model_is_told(shop: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "trained"
    adapter_folder(out / "checkpoint-12", seed=1, rank=4)
    (out / "README.md").write_text("made by the Trainer")
    assert "there is no model in what was saved" in cli("save", out, "sentiment").out
    adapter_folder(out, seed=1, rank=4)
    assert "there is no model" not in cli("save", out, "sentiment").out


def test_show_prints_the_settings_that_tell_and_counts_the_others(shop: Path, cli: Cli) -> None:
    arguments = {"learning_rate": 2e-4, "ddp_timeout": 1800, "weight_decay": 0.0, "seed": 0}
    with open_repository(shop / ".stemmata") as repo:
        folder = adapter_folder(shop / "trained", seed=99, rank=4)
        provenance = {"training_arguments": json.dumps(arguments).encode()}
        repo.save(folder, "sentiment", name="t", config={**arguments, "mine": 1}, provenance=provenance)
    words = cli("show", "sentiment@t").out
    assert all(key in words for key in ("learning_rate", "seed", "mine", "2 more settings of the Trainer"))
    assert "ddp_timeout" not in words
    assert "weight_decay" not in words
    said = cli("diff", "sentiment@v1", "sentiment@t")
    assert "ddp_timeout" not in said.out
    assert "2 settings of the Trainer, on one side only" in said.err
    with open_repository(shop / ".stemmata") as repo:
        folder = adapter_folder(shop / "again", seed=98, rank=4)
        repo.save(folder, "sentiment", name="u", config={"mine": 1}, provenance=provenance)
    assert "ddp_timeout" in cli("diff", "sentiment@t", "sentiment@u").out
    everything = cli("show", "sentiment@t", "--config").out
    assert "ddp_timeout" in everything
    assert "more setting" not in everything


def test_sentences_break_between_words_on_a_terminal(shop: Path) -> None:
    leader, follower = pty.openpty()
    script = "import sys; from stemmata.cli.main import main; sys.argv[0] = 'stemmata'; main()"
    subprocess.run(
        [sys.executable, "-c", script, "show", "sentiment@"],
        cwd=shop,
        env={**os.environ, "COLUMNS": "60", "TERM": "dumb"},
        stdin=subprocess.DEVNULL,
        stderr=follower,
        check=False,
    )
    os.close(follower)
    lines = os.read(leader, 1 << 16).decode().splitlines()
    os.close(leader)
    assert len(lines) > 2
    assert [line for line in lines if len(line) > 60] == []
    assert lines[-1].startswith(" " * 9)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every repository, for root too."""

    def probe(_: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(publish, "probe", probe)


@pytest.mark.usefixtures("read_only")
def test_no_command_is_run_whose_versions_could_not_be_kept(shop: Path, cli: Cli) -> None:
    said = cli("run", "sentiment", "--", "touch", "trained")
    assert (said.code, "Read-only file system" in said.err) == (6, True), said.err
    assert not Path("trained").exists()


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("until", [["--once"], ["--until-idle", "0.1"]])
def test_a_watch_that_could_keep_nothing_fails(
    shop: Path, cli: Cli, tmp_path: Path, until: list[str]
) -> None:
    adapter_folder(tmp_path / "trained", seed=1, rank=4)
    said = cli("watch", str(tmp_path / "trained"), "sentiment", "--interval", "0.05", *until)
    assert said.code == 6, said.err


def test_an_expression_alone_is_of_all_models(shop: Path, cli: Cli, tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "more", seed=3, rank=4)
    assert cli("save", str(folder), "other", "--metric", "eval_loss=0.1").code == 0
    found = cli("search", "eval_loss < 0.15", "--json").json
    assert found == cli("search", "-", "eval_loss < 0.15", "--json").json
    assert {version["model"] for version in found["versions"]} == {"other", "sentiment"}
    assert cli("search", "sentiment").code == 2
