"""What is beside the straight way: moves that move nothing, numbers that are none, streams that are closed or
hold less, paths that are empty, and targets that are no files of one's own."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from makers import model_folder
from stemmata.repository import open as open_repository

Cli = Callable[..., Any]


def run_here(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "stemmata", *words], capture_output=True, **options)


@pytest.fixture
def diverged(shop: Path) -> Path:
    """Four epochs, each from the one before; in the third the loss became NaN."""
    with open_repository() as repo:
        last = None
        for epoch, loss in enumerate((0.5, 0.4, math.nan, math.nan)):
            more = {"grad_norm": math.nan} if epoch else {}
            last = repo.save(
                model_folder(shop / "out", seed=epoch),
                "m",
                name=f"e{epoch}",
                parents=[last] if last else [],
                metrics={"loss": loss, **({"late": loss} if epoch > 1 else {}), **more},
            )
    return shop


def test_a_bisection_finds_where_a_metric_became_nan_and_tells_it(diverged: Path, cli: Cli) -> None:
    found = cli("bisect", "m@e0", "@e3", "--require", "loss < 1")
    assert found.code == 0
    assert "m@e2" in found.out.splitlines()[0]
    assert "0.4 → nan" in found.out
    assert "late" not in found.out, "of what one of them lacks nothing is told"
    assert "grad_norm" not in found.out, "NaN on both sides is no change"
    ran = cli("bisect", "m@e0", "@e3", "--by", "time", "--", "false")
    assert (ran.code, "is the first bad version" in ran.out, "unexpected" in ran.err) == (0, True, False)


def test_where_a_metric_is_missing_nothing_is_said_of_it(diverged: Path, cli: Cli) -> None:
    assert cli("bisect", "m@e0", "@e3", "--require", "nosuch < 1").code == 1


def test_clearing_a_policy_can_be_tried(shop: Path, cli: Cli) -> None:
    cli("retain", "sentiment", "--last", "9", "-y")
    tried = cli("retain", "sentiment", "--clear", "--dry-run")
    assert "nothing was changed" in tried.err
    assert cli("retain", "sentiment", "--show", "--json").json["policy"] == {"last": 9}
    cli("retain", "sentiment", "--clear")
    assert cli("retain", "sentiment", "--show", "--json").json["policy"] is None


def test_an_alias_that_stays_where_it_was_is_told_so(shop: Path, cli: Cli) -> None:
    cli("promote", "sentiment@r8/epoch-2", "production")
    again = cli("promote", "sentiment@r8/epoch-2", "production")
    assert again.code == 0
    assert "it was there already" in again.err
    assert "rollback" not in again.err, "that would move it to what it was before"


def test_a_card_is_written_through_links_and_pipes(shop: Path, cli: Cli) -> None:
    (shop / "real.md").write_text("old")
    (shop / "link.md").symlink_to("real.md")
    assert cli("show", "sentiment@v1", "--card", "-o", "link.md").code == 0
    assert (shop / "link.md").is_symlink()
    card = (shop / "real.md").read_text()
    assert card == cli("show", "sentiment@v1", "--card").out
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()))
    reader.start()
    assert cli("show", "sentiment@v1", "--card", "-o", "pipe").code == 0
    reader.join()
    assert read == [card]
    assert Path("pipe").is_fifo()
    for other in (["--html", "x.html"], ["--heatmap"]):
        assert cli("show", "sentiment@v1", "--card", *other).code == 2


def test_nothing_is_written_into_the_repository(shop: Path, cli: Cli) -> None:
    before = (shop / ".stemmata/stemmata.json").read_bytes()
    for words in (
        ["checkout", "sentiment@v1", "-o", ".stemmata/packs", "--force", "-y"],
        ["show", "sentiment@v1", "--card", "-o", ".stemmata/stemmata.json"],
        ["show", "sentiment@v1", "--html", ".stemmata/stemmata.json"],
        ["log", "sentiment", "--html", ".stemmata/stemmata.json"],
    ):
        found = cli(*words)
        assert (found.code, "lies in the repository" in found.err) == (2, True), words
    assert (shop / ".stemmata/stemmata.json").read_bytes() == before


def test_a_folder_that_is_a_repository_and_a_project_is_written_to(shop: Path, cli: Cli) -> None:
    """`stemmata init .` makes one: its own folders are not written to, what lies beside them is."""
    shutil.copytree(shop / ".stemmata", "proj")
    for refused in ("proj", "proj/packs", "proj/packs/x", "proj/cache/x", "proj/stemmata.json"):
        assert cli("-R", "proj", "checkout", "sentiment@v1", "-o", refused).code == 2, refused
    assert cli("-R", "proj", "checkout", "sentiment@v1", "-o", "proj/out").code == 0
    assert any(Path("proj/out").iterdir())


def test_a_link_that_leads_to_itself_is_named(shop: Path, cli: Cli) -> None:
    os.symlink("loop", "loop")
    for words in (
        ["checkout", "sentiment@v1", "-o", "loop"],
        ["show", "sentiment@v1", "--card", "-o", "loop"],
        ["log", "sentiment", "--html", "loop"],
    ):
        found = cli(*words)
        assert (found.code, "a link on the way leads to itself" in found.err) == (2, True), words


def test_an_eval_is_not_added_if_what_goes_with_it_cannot_be(shop: Path, cli: Cli) -> None:
    found = cli("annotate", "sentiment@v1", "--eval", "e", "--metric", "q=1", "--label", "a\nb=1")
    assert found.code == 2
    assert cli("show", "sentiment@v1", "--json").json["evals"] == []


@pytest.mark.parametrize("words", [["save", "", "m"], ["import", ""], ["checkout", "sentiment@v1", "-o", ""]])
def test_an_empty_path_is_not_the_working_folder(shop: Path, cli: Cli, words: list[str]) -> None:
    found = cli(*words)
    assert (found.code, "it is empty" in found.err) == (2, True)


def test_whoever_has_no_stdin_is_asked_nothing(shop: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m stemmata delete sentiment@r8/epoch-2 <&-", shell=True, capture_output=True
    )
    assert (done.returncode, b"unexpected" in done.stderr) == (0, False)


def test_a_stream_of_fewer_letters_still_gets_every_name(shop: Path) -> None:
    with open_repository() as repo:
        repo.save(model_folder(shop / "o", seed=3), "Größe")
    for encoding in ("ascii", "latin-1", "utf-8"):
        done = run_here("models", "--json", env={**os.environ, "PYTHONIOENCODING": encoding})
        assert "Größe" in {m["name"] for m in json.loads(done.stdout)["models"]}, encoding


def test_a_stdout_that_is_full_is_what_is_told(shop: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "stemmata", "annotate", "sentiment@v1", "--metric", "q=1"],
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert (done.returncode, b"the output cannot be written" in done.stderr) == (6, True)


@pytest.mark.parametrize("verb", [["run", "m"], ["bisect", "sentiment@r4/epoch-1", "@r4/epoch-3"]])
def test_the_words_of_another_command_stand_behind_dashes(shop: Path, cli: Cli, verb: list[str]) -> None:
    found = (
        cli(*verb, "python", "t.py", "--timeout", "3")
        if verb[0] == "bisect"
        else cli(*verb, "python", "t.py", "--keep", "3")
    )
    assert (found.code, "write -- before it" in found.err) == (2, True)
    assert cli(*verb, "true", "--", "x").code == 2


def test_a_repository_is_made_where_the_variable_says(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEMMATA_REPO", str(tmp_path / "there"))
    assert cli("init").code == 0
    assert (tmp_path / "there/stemmata.json").is_file()
    assert cli("models").code == 0
    monkeypatch.delenv("STEMMATA_REPO")
    assert "-R other" in cli("-R", "other", "init").err


def test_a_project_and_the_home_folder_are_found(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(shop.parent))
    for where in (str(shop), "~/shop", "~/shop/.stemmata"):
        assert cli("-R", where, "models").code == 0, where
        assert cli("check", "-R", where).code == 0, where
        monkeypatch.setenv("STEMMATA_REPO", where)
        assert cli("models").code == 0, where
        monkeypatch.delenv("STEMMATA_REPO")
    with open_repository("~/new", create=True) as repo:
        assert Path(repo.where) == shop.parent / "new"


def test_an_alias_can_be_deleted_and_made_again(shop: Path, cli: Cli) -> None:
    gone = cli("alias", "delete", "sentiment", "production", "--why", "a slip", "--json").json
    assert (gone["to"], gone["why"]) == (None, "a slip")
    assert cli("alias", "list", "sentiment", "--json").json["aliases"] == []
    assert cli("alias", "set", "sentiment", "production", gone["from"]).code == 0
    assert cli("alias", "list", "sentiment", "--json").json["aliases"][0]["id"] == gone["from"]
    cli("protect", "sentiment", "production", "--lock", "--why", "live")
    assert cli("alias", "delete", "sentiment", "production").code == 8
    forced = cli("alias", "delete", "sentiment", "production", "--force", "--why", "x")
    assert (forced.code, "make it again with: stemmata alias set sentiment" in forced.err) == (0, True)


def test_what_never_moves_is_not_protected(shop: Path, cli: Cli) -> None:
    for name in ("v1", "r4/epoch-1"):
        found = cli("protect", "sentiment", name, "--lock")
        assert (found.code, "never moves" in found.err) == (2, True), name


def test_numbers_of_no_size_are_taken_or_refused(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("log", "-n", "9" * 23).code == 0
    assert cli("run", "m", "--every", "²", "--", "true").code == 2
    assert cli("save", model_folder(shop / "o", seed=1), "m", "--step", "-1").code == 2
    monkeypatch.setenv("COLUMNS", "²")
    assert cli("log").code == 0


def test_what_is_there_is_told_as_it_is(shop: Path, cli: Cli) -> None:
    folder = model_folder(shop / "o", seed=1)
    twice = ["--parent", "sentiment@v1"] * 2
    cli("save", folder, "m", "--name", "a", *twice, "--metric", "x y=1", "--metric", "z=nan")
    assert len(cli("log", "m", "--json").json["versions"][0]["parents"]) == 1
    assert "no version has" not in cli("log", "m", "--metric", "x y").err
    assert "what it has is NaN" in cli("best", "m", "--metric", "z").err
    assert "such a metric" in cli("log", "m", "--curves", "--metric", "nosuch").out
    assert "`trainer`" not in cli("show", "m@a", "--card").out
    assert "0 to 9 and a to f" in cli("save", folder, "m", "--name", "e100").err
    for words in (["log", "sentiment", "--run", "R8"], ["best", "sentiment", "--run", "R8"]):
        assert cli(*words).code == 0, words
    cli("delete", "m@a", "-y")
    assert "--deleted" in cli("log", "m").err


def test_one_who_asks_reads_of_a_stream_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    from stemmata.cli.output import Output

    monkeypatch.setattr(sys, "stdin", None)
    assert Output().ask("Delete?") is True
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert Output().ask("Delete?") is True, "a file is no terminal"
