"""Pictures on the command line: where they are drawn, in how many colours, and where pages go."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from picture_makers import fill
from stemmata.cli.main import run
from stemmata.cli.pictures import colours_of
from stemmata.repository import Repository
from stemmata.repository import open as open_repository

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    with open_repository(root / "repo", create=True) as repo:
        fill(repo, root / "work")
    return root / "repo"


@pytest.fixture
def cli(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    monkeypatch.setenv("STEMMATA_REPO", str(place))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_diff_draws_a_heat_map(cli: Cli) -> None:
    code, out, _ = cli("diff", "m@base", "m@r1/epoch-1", "--heatmap")
    assert code == 0
    assert out.startswith("Weights of layers 2, 3 alone (of 4) moved")
    assert re.search(r"^ +2  2\.0 +2\.0 +2\.0 +2\.0 +2\.0 +2\.0$", out, re.MULTILINE)
    assert re.search(r"^ +1  · +· +· +· +· +·$", out, re.MULTILINE)
    assert "\x1b" not in out


def test_a_terminal_gets_the_colours_that_it_has(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLORTERM", raising=False)
    assert "\x1b[38;5;" in cli("diff", "m@base", "m@r1/epoch-1", "--heatmap")[1]
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert "48;2;" in cli("diff", "m@base", "m@r1/epoch-1", "--heatmap")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = cli("log", "m", "--curves")[1]
    assert "38;" not in plain
    assert colours_of(io.StringIO()) == 0


def test_log_draws_curves_of_the_runs(cli: Cli) -> None:
    code, out, _ = cli("log", "m", "--curves")
    assert code == 0
    assert out.startswith("eval_loss is lowest in all at epoch 3")
    assert "eval_f1  higher is better" in out
    assert "production: all at epoch 2, 0.5" in out
    only = cli("log", "m", "--curves", "--metric", "eval_f1", "--run", "top")[1]
    assert "eval_f1" in only
    assert "eval_loss" not in only
    assert "in 1 run" in only
    assert all(len(line) <= 100 for line in out.split("\n"))


def test_show_draws_what_moved_since_the_parent(cli: Cli) -> None:
    assert "alone (of 4) moved" in cli("show", "m@r1/epoch-2", "--heatmap")[1]
    assert cli("show", "m@base", "--heatmap")[1] == "Nothing can be compared.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("diff", "m@base", "m@r1/epoch-1"),
        ("log", "m"),
        ("log",),
        ("log", "m", "--run", "top", "--limit", "2"),
        ("show", "lora@epoch-2"),
        ("lineage", "m"),
    ],
    ids=" ".join,
)
def test_a_page_is_written(cli: Cli, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, out, err = cli(*arguments, "--html", "out.html")
    assert (code, out) == (0, "")
    assert "written to out.html" in err
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Apache ECharts" in page


def test_json_says_what_is_drawn_and_where_the_page_is(cli: Cli, tmp_path: Path) -> None:
    import json

    told = json.loads(cli("diff", "m@base", "m@r1/epoch-1", "--heatmap", "--html", "d.html", "--json")[1])
    assert told["kind"] == "heatmap"
    assert told["html"] == "d.html"
    assert len(told["rows"]) > 20
    assert (tmp_path / "d.html").exists()


def test_a_folder_that_is_not_there_is_an_error_with_a_next_step(cli: Cli) -> None:
    code, _, err = cli("log", "m", "--html", "nosuch/out.html")
    assert code == 1
    assert "nosuch/out.html cannot be written" in err
    assert "next:" in err


def test_lists_know_their_runs(place: Path) -> None:
    with open_repository(place) as repo:
        assert [v.name for v in repo.versions("m").of_run("top")] == [
            "r1/epoch-3",
            "r1/epoch-2",
            "r1/epoch-1",
        ]
        assert len(repo.versions("m").of_run("nosuch")) == 0
        assert len(repo.versions("m").of_run("TOP")) == len(repo.versions().of_run("Top")) > 0


def test_nothing_of_pictures_is_imported_unasked(shown: Repository) -> None:
    import subprocess
    import sys

    code = "import sys, stemmata; print([m for m in sys.modules if 'pictures' in m or 'portraits' in m])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
