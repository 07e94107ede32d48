"""lineage, blame, bisect, the ties of best and the hint that a run overfits, on the command line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from makers import model_folder
from stemmata.records import Run
from stemmata.repository import open as open_repository
from stemmata.version import Version

Cli = Callable[..., Any]
LOSSES = [0.9, 0.7, 0.5, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of nine epochs that overfits from the fourth on, and another one from there."""
    root = tmp_path_factory.mktemp("trained")
    with open_repository(root / ".stemmata", create=True) as repo:

        def save(name: str, seed: int, loss: float, training: float, *parents: Version) -> Version:
            folder = model_folder(root / "out", seed=seed)
            (folder / "n.txt").write_text(str(seed))
            run = Run(name[0] * 32, name[0])
            metrics = {"eval_loss": loss, "loss": training}
            return repo.save(
                folder, "toy", name=name, run=run, parents=parents, metrics=metrics, provenance={}
            )

        made: list[Version] = []
        for epoch, loss in enumerate(LOSSES, 1):
            made.append(save(f"a/epoch-{epoch}", epoch, loss, 1 / epoch, *made[-1:]))
        save("b/epoch-1", 1, 0.4, 0.2, made[3])
        repo.alias("toy", "production", made[3])
    return root


@pytest.fixture
def trained(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working directory."""
    shutil.copytree(pristine, tmp_path / "trained")
    monkeypatch.chdir(tmp_path / "trained")
    monkeypatch.delenv("STEMMATA_REPO", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "trained"


def lines(text: str) -> list[str]:
    """What is said, without the ids."""
    return [re.sub(r"  +[0-9a-f]{8,12}\b.*", "", line) for line in text.rstrip("\n").split("\n")]


# --- lineage --------------------------------------------------------------------------------------


def test_lineage_is_a_tree(trained: Path, cli: Cli) -> None:
    said = cli("lineage", "toy")
    assert said.code == 0
    assert lines(said.out)[1:] == [
        "● a/epoch-1",
        "● a/epoch-2",
        "● a/epoch-3",
        "★ a/epoch-4 [production]",
        "├─★ b/epoch-1",
        "┊ 4 more, to epoch-8",
        "● a/epoch-9",
    ]
    assert "★ best, lowest eval_loss" in said.err
    assert len(lines(cli("lineage", "toy", "--all").out)) == 11
    assert "a/epoch-4 [production] ◀" in cli("lineage", "toy@production").out
    assert cli("lineage").out == said.out
    document = cli("lineage", "toy@b/epoch-1", "--json").json
    before = [f"a/epoch-{k}" for k in range(1, 5)]
    assert [node["name"] for node in document["nodes"]] == [*before, "b/epoch-1"]
    assert document["edges"][-1]["kind"] == "fork"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(
    trained: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for command in (
        ["lineage", "toy"],
        ["blame", "toy@a/epoch-9"],
        ["best", "toy"],
        ["bisect", "toy@a/epoch-1", "@a/epoch-4", "--require", "eval_loss > 0.42"],
    ):
        said = cli(*command)
        assert said.code == 0, said.err
        assert [line for line in (said.out + said.err).split("\n") if len(line) > width] == []


def test_lineage_of_nothing_says_so(trained: Path, cli: Cli) -> None:
    cli("init", "empty")
    said = cli("lineage", "-R", "empty")
    assert (said.code, said.out) == (0, "")
    assert "no versions yet" in said.err
    assert cli("lineage", "nosuch").code == 3
    assert "no version has the metric 'nosuch'" in cli("lineage", "toy", "--metric", "nosuch").err


# --- blame ----------------------------------------------------------------------------------------


def test_blame_names_who_moved_what(trained: Path, cli: Cli) -> None:
    said = cli("blame", "toy@a/epoch-9")
    assert said.code == 0
    assert re.search(r"layer\.\{0-1\}  a/epoch-9 +\d+ %  +0 ", said.out)
    assert "layer.0.weight" in cli("blame", "toy@a/epoch-9", "layer.0").out
    assert "came with a/epoch-1" in cli("blame", "toy@a/epoch-9", "--at-least", "1000%").out
    document = cli("blame", "toy@a/epoch-9", "--json").json
    assert [layer["version"]["name"] for layer in document["layers"]] == ["a/epoch-9"] * 2
    assert document["bytes_read"] == 0


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["--at-least", "much"], 2, "'much' is no share"),
        (["--at-least", "-1"], 2, "no share"),
        (["--by", "file"], 2, "neither 'layer' nor 'tensor'"),
        (["nosuch"], 3, "it has: layer.0.weight"),
    ],
)
def test_mistakes_of_blame_are_told(trained: Path, cli: Cli, words: list[str], code: int, hint: str) -> None:
    said = cli("blame", "toy@a/epoch-9", *words)
    assert said.code == code
    assert hint in " ".join(said.err.split())


# --- bisect ---------------------------------------------------------------------------------------


def test_bisect_with_a_command(trained: Path, cli: Cli) -> None:
    command = ["sh", "-c", "echo heard; test $(cat {}/n.txt) -lt 6"]
    said = cli("bisect", "toy@a/epoch-1", "@a/epoch-9", "--", *command)
    assert said.code == 0, said.err
    assert lines(said.out)[0] == "toy@a/epoch-6"
    assert "is the first bad version" in said.out
    assert "eval_loss  0.45 → 0.5" in said.out
    assert "●···●✗✗·✗" in said.out
    assert "3 evaluations for 8 versions" in said.err
    assert "look: stemmata diff toy@a/epoch-5 toy@a/epoch-6" in said.err
    again = cli("bisect", "toy@a/epoch-1", "@a/epoch-9", "--json", "--", *command)
    assert (again.json["first_bad"]["name"], again.json["evaluations"]) == ("a/epoch-6", 0)
    log = cli("bisect", "toy", "--log")
    assert log.out.startswith("stemmata bisect toy@a/epoch-1 toy@a/epoch-9 -- sh -c")
    assert [re.split(r"  +", line)[2] for line in log.out.splitlines()[3:]] == ["good", "bad", "bad"]
    assert cli("bisect", "toy", "--log", "--json").json["bisection"]["done"] is True


def test_bisect_lists_what_is_left_where_nothing_can_be_tested(trained: Path, cli: Cli) -> None:
    said = cli("bisect", "toy@a/epoch-1", "@a/epoch-4", "--", "sh", "-c", "exit 125")
    assert said.code == 1
    assert "among 3 versions" in said.out
    assert "toy@a/epoch-2" in said.out
    assert "skipped  exit status 125" in said.out
    assert cli("bisect", "toy@a/epoch-1", "@a/epoch-4", "--json", "--", "sh", "-c", "exit 125").code == 1


def test_bisect_with_metrics_says_if_there_are_more_places(trained: Path, cli: Cli) -> None:
    said = cli("bisect", "toy@a/epoch-4", "@a/epoch-9", "--require", "eval_loss < 0.48")
    assert said.code == 0
    assert "changes" not in said.err
    cli("annotate", "toy@a/epoch-7", "--metric", "eval_loss=0.1")
    said = cli("bisect", "toy@a/epoch-4", "@a/epoch-9", "--require", "eval_loss < 0.48")
    assert said.code == 0
    assert "changes 3 times along this line" in said.err


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["toy@a/epoch-1"], 2, "name a good version and a bad one"),
        (["toy@a/epoch-1", "@a/epoch-9"], 2, "then -- and the command"),
        (["toy@a/epoch-1", "--", "false"], 2, "name a good version and a bad one"),
        (["toy@a/epoch-9", "@a/epoch-1", "--", "false"], 4, "the other way round"),
        (["toy@b/epoch-1", "@a/epoch-9", "--", "false"], 4, "both come from toy@a/epoch-4"),
        (["toy@a/epoch-1", "@a/epoch-9", "--", "/no/such/eval"], 2, "'/no/such/eval' cannot be run"),
        (["toy@a/epoch-1", "@a/epoch-9", "--", "sh", "-c", "exit 200"], 1, "ended with status 200"),
        (["toy@a/epoch-1", "@a/epoch-9", "--timeout", "-3", "--", "false"], 2, "no number of seconds"),
        (["toy@a/epoch-1", "@a/epoch-9", "--require", "eval_loss > 0.95"], 4, "was said to be good"),
        (["toy@a/epoch-1", "@a/epoch-9", "--require", "eval_loss >"], 2, "cannot be read"),
        (["toy@a/epoch-1", "@nosuch", "--", "false"], 3, "nosuch"),
        (["nosuch", "--log"], 3, "nosuch"),
    ],
)
def test_mistakes_of_bisect_are_told(trained: Path, cli: Cli, words: list[str], code: int, hint: str) -> None:
    said = cli("bisect", *words)
    assert said.code == code, said.err
    assert hint in " ".join(said.err.split())


def test_a_bisection_that_nobody_began_is_no_error(trained: Path, cli: Cli) -> None:
    said = cli("bisect", "toy", "--log")
    assert (said.code, said.out) == (0, "")
    assert "no bisection of toy is kept" in said.err


def test_verdicts_that_cannot_be_kept_are_found_all_the_same(trained: Path, cli: Cli) -> None:
    (trained / ".stemmata" / "cache" / "bisections").write_text("no folder")
    for _ in range(2):
        said = cli("bisect", "toy@a/epoch-1", "@a/epoch-9", "--no-checkout", "--json", "--", "false")
        assert (said.code, said.json["evaluations"]) == (0, 3)


# --- best, and overfitting ------------------------------------------------------------------------


def test_best_lists_what_is_just_as_good(trained: Path, cli: Cli) -> None:
    said = cli("best", "toy")
    assert lines(said.out) == [
        "toy@a/epoch-4 [production]",
        "  lowest eval_loss 0.4",
        "  just as good, 0.4:",
        "    toy@b/epoch-1",
    ]
    assert "the one that was saved first is the best" in said.err
    document = cli("best", "toy", "--json").json
    assert document["version"]["name"] == "a/epoch-4"
    assert [tie["name"] for tie in document["tied"]] == ["b/epoch-1"]
    assert [tie["id"] for tie in document["tied"]] == document["ties"]
    assert document["chosen"] == "earliest"
    worst = cli("best", "toy", "--direction", "max", "--json").json
    assert (worst["version"]["name"], worst["ties"], worst["chosen"]) == ("a/epoch-1", [], "only")


def test_best_counts_all_that_is_just_as_good(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "w.bin").write_bytes(b"w")
    with open_repository(tmp_path / "r", create=True) as repo:
        for i in range(130):
            repo.save(tmp_path / "w.bin", "m", name=f"step-{i}", metrics={"acc": 1.0}, step=i)
    at = ("--repo", str(tmp_path / "r"))
    assert "and 119 more versions; see --json" in cli("best", "m", *at).out
    document = cli("best", "m", "--json", *at).json
    assert len(document["ties"]) == 129
    assert [tie["name"] for tie in document["tied"]] == [f"step-{i}" for i in range(1, 130)]


def test_a_run_that_overfits_says_so_where_it_is_looked_at(trained: Path, cli: Cli) -> None:
    words = "loss falls, eval_loss rises since a/epoch-4 (0.4 → 0.8): it may be overfitting"
    assert f"toy@a: {words}" in cli("log", "toy").err
    assert f"its run: {words}" in cli("best", "toy").err
    assert words in " ".join(cli("show", "toy@a/epoch-9").out.split())
    assert "overfitting" not in cli("show", "toy@b/epoch-1").out
    assert "overfitting" not in cli("log", "toy", "--at", "now").err
    (hint,) = cli("log", "toy", "--json").json["overfitting"]
    assert (hint["run"], hint["best"]["name"], hint["since"]["name"]) == ("a", "a/epoch-4", "a/epoch-4")
    assert cli("best", "toy", "--json").json["overfitting"] == hint
    assert cli("show", "toy@b/epoch-1", "--json").json["overfitting"] is None
    # Too few of the run are shown to say anything of it.
    assert "overfitting" not in cli("log", "toy", "-n", "3").err
