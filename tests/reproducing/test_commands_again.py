"""Recorded command lines, made fit to run elsewhere: flags of Python, paths, masked arguments, options."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.capturing import Captured
from stemmata.capturing.reading import Code, Command, EntryPoint, Environment
from stemmata.errors import InvalidArgument
from stemmata.reproducing import commands
from stemmata.reproducing.changing import value_of
from stemmata.reproducing.commands import Line
from stemmata.reproducing.options import with_option
from stemmata.reproducing.places import Places

PYTHON = "/usr/bin/python3"


@pytest.mark.parametrize(
    ("argv", "script", "deaf"),
    [
        (["train.py"], "train.py", None),
        (["-u", "train.py", "-I"], "train.py", None),
        (["-X", "dev", "-W", "error", "train.py"], "train.py", None),
        (["-Xdev", "-Werror", "train.py"], "train.py", None),
        (["-m", "mine", "--lr", "1"], "-m", None),
        (["-um", "mine"], "-um", None),
        (["-c", "print(1)", "-E"], "-c", None),
        (["-I", "train.py"], "train.py", "-I"),
        (["-uE", "-m", "mine"], "-m", "-E"),
        (["-XIES", "train.py"], "train.py", None),
        (["-Sm", "mine"], "-Sm", "-S"),
    ],
)
def test_where_the_flags_of_python_end(argv: list[str], script: str, deaf: str | None) -> None:
    line = Line.parse([PYTHON, *argv])
    assert line.argv[line.script] == script
    assert line.deaf == deaf


def test_options_are_found_by_name_and_changed_where_they_stand() -> None:
    argv = [PYTHON, "train.py", "--learning-rate", "1e-4", "--seed=3", "--fast", "-x", "-1", "--n"]
    found = Line.parse(argv).options()
    assert found == {"learning_rate": [2], "seed": [4], "fast": [5], "x": [6], "n": [8]}
    assert with_option(argv, "learning_rate", "1e-5")[2:4] == ["--learning-rate", "1e-5"]
    assert with_option(argv, "seed", "7")[4] == "--seed=7"
    assert with_option(argv, "x", "2")[6:8] == ["-x", "2"]
    assert with_option(argv, "n", "9", recorded=3)[8:] == ["--n", "9"]


WORDS = ["-u", "-m", "-X", "-c", "--lr", "1e-3", "-1", "a.py", "-", "--x=1"]


@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_any_command_line_is_read(argv: list[str]) -> None:
    line = Line.parse([PYTHON, *argv])
    assert line.script >= 1
    for name, (place, *_) in line.options().items():
        changed = with_option(line.argv, name, "v", recorded=0)
        assert "v" in changed[place] or changed[place + 1] == "v"


@pytest.mark.parametrize(
    ("words", "value", "changed"),
    [
        ("--x q_proj v_proj --y 1", "k_proj", "--x k_proj --y 1"),
        ("--x q_proj v_proj", '["k_proj", "o_proj"]', "--x k_proj o_proj"),
        ("--x q_proj --y 1", ["k_proj", "o_proj"], "--x k_proj o_proj --y 1"),
        ("--x 1 2 3 data.csv", "4", "--x 4 data.csv"),
        ("--x -1 -2 --y", ["3", -4], "--x 3 -4 --y"),
        ("--x [1,2] --y", "[3, 4]", "--x [3, 4] --y"),
        ("--x=[1,2]", [3], "--x=[3]"),
        ("--x=a", ["b"], "--x=b"),
        ("--x 1 --y 2 --x 3", "4", "--x 4 --y 2"),
        ("--x --y 1", "false", "--y 1"),
        ("--x", False, ""),
        ("--x --y 1", "true", "--x --y 1"),
        ("--x=True --y", False, "--x=False --y"),
        ("--x true data.csv", "False", "--x False data.csv"),
    ],
)
def test_an_option_has_the_words_up_to_the_next_one(words: str, value: object, changed: str) -> None:
    found = with_option([PYTHON, "train.py", *words.split()], "x", value)
    assert " ".join(found[2:]) == changed


def test_what_was_recorded_tells_a_flag_and_a_single_value() -> None:
    line = [PYTHON, "train.py", "--fp16", "data.csv", "--scheduler", "linear", "runs"]
    assert with_option(line, "fp16", False, recorded=True)[2:4] == ["data.csv", "--scheduler"]
    assert with_option(line, "scheduler", "cosine", recorded="linear")[4:] == [
        "--scheduler",
        "cosine",
        "runs",
    ]
    assert with_option(line, "scheduler", "cosine", recorded=["linear"])[4:] == ["--scheduler", "cosine"]


@pytest.mark.parametrize(
    ("words", "value", "why"),
    [
        ("--x data.csv", "false", "whether data.csv is its value cannot be told"),
        ("--x cuda conf.yaml", "cpu", 'give all of these as a list: --set \'x=["cpu", "conf.yaml"]\''),
        ("--x --y", "9", "without a value: it can be true or false"),
        ("--x=a", ["b", "c"], "2 values cannot be told"),
        ("--x a --x b", ["b", "c"], "stands there 2 times"),
        ("--x a", [], "0 values cannot be told"),
    ],
)
def test_where_it_is_unclear_what_a_change_would_do_it_is_refused(
    words: str, value: object, why: str
) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(why)):
        with_option([PYTHON, "train.py", *words.split()], "x", value)


def test_masked_arguments_are_given_by_option_number_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [PYTHON, "train.py", "--api-key", "***", "--url=https://***@host", "***", "--lr", "1"]
    monkeypatch.delenv("STEMMATA_ARG_API_KEY", raising=False)
    words, missing = commands.with_given(argv, {})
    assert words == argv
    assert [m.what for m in missing] == ["argument 3 (api-key)", "argument 4 (url)", "argument 5"]
    assert "--arg api-key=VALUE, or STEMMATA_ARG_API_KEY in the environment" in missing[0].why
    assert commands.names_of_masked(argv) >= {"3", "api-key", "4", "url", "5"}
    monkeypatch.setenv("STEMMATA_ARG_API_KEY", "k")
    words, missing = commands.with_given(argv, {"url": "u", "5": "five"})
    assert not missing
    assert words == [PYTHON, "train.py", "--api-key", "k", "--url=u", "five", "--lr", "1"]


def test_a_key_before_a_masked_value_is_its_name_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Hydra and OmegaConf take their settings: key=value."""
    argv = [
        PYTHON,
        "train.py",
        "lr=1",
        "hub.token=***",
        "+db/auth.key=***",
        "--set",
        "a=***",
        "http://h?k=***",
    ]
    words, missing = commands.with_given(argv, {})
    said = ["argument 3 (hub.token)", "argument 4 (db/auth.key)", "argument 6 (a)", "argument 7"]
    assert [m.what for m in missing] == said
    assert "--arg hub.token=VALUE, or STEMMATA_ARG_HUB_TOKEN in the environment" in missing[0].why
    assert commands.names_of_masked(argv) >= {"hub.token", "3", "db/auth.key", "4", "set", "a", "7"}
    given = {"hub.token": "s1=", "4": "s2", "set": "a=s3", "7": "http://h?k=s4"}
    words, missing = commands.with_given(argv, given)
    assert not missing
    assert words[3:] == ["hub.token=s1=", "+db/auth.key=s2", "--set", "a=s3", "http://h?k=s4"]
    secrets = commands.given_again(argv, words)
    assert secrets == ["s1=", "s2", "s3", "http://h?k=s4"]
    assert commands.shown(words, secrets) == [*argv[:7], "***"]
    monkeypatch.setenv("STEMMATA_ARG_HUB_TOKEN", "s5")
    assert commands.with_given(argv, {})[0][3] == "hub.token=s5"


def test_paths_of_the_run_become_those_of_the_work_folder(tmp_path: Path) -> None:
    places = Places.of(Path("/again"), "/home/me/proj", "/home/me/proj/runs")
    assert (places.root, places.folder) == (Path("/again/code"), Path("/again/code/runs"))

    def moved(path: str) -> str | None:
        found = places.here(path)
        return str(found) if found is not None else None

    climbing = places.of_argument("../other/d.csv", "/home/me/proj/runs")
    assert climbing == Path("/again/code/other/d.csv")
    assert places.of_argument("../../../gone", "/home/me/proj/runs") == Path("/again/outside/home/gone")
    assert places.of_argument("../../../../etc", "/home/me/proj/runs") == Path("/etc")
    assert places.of_argument("/etc", "/home/me/proj/runs") is None
    line = Line.parse([PYTHON, "-u", "/home/me/proj/train.py", "--data=/home/me/proj/d.csv", "/mnt/x", "y"])
    words, missing = commands.here(line, moved)
    assert words == [sys.executable, "-u", "/again/code/train.py", "--data=/again/code/d.csv", "/mnt/x", "y"]
    assert not missing
    _, missing = commands.here(Line.parse([PYTHON, "/opt/gone/bin/trl-of-old", "sft"]), moved)
    assert [m.what for m in missing] == ["program trl-of-old"]
    words, _ = commands.here(Line.parse([PYTHON, "/opt/gone/bin/pytest", "-q"]), moved)
    assert words[1] == str(Path(sys.executable).parent / "pytest")


def test_the_working_folder_may_lie_anywhere() -> None:
    around = Places.of(Path("/again"), "/data/proj/src", "/data/proj")
    assert (around.root, around.folder) == (Path("/again/code/src"), Path("/again/code"))
    apart = Places.of(Path("/again"), "/data/proj", "/data/runs")
    assert (apart.root, apart.folder) == (Path("/again/code"), Path("/again/folder"))
    assert apart.here("/data/runs/../proj/x") == Path("/again/code/x")
    assert apart.here("/data/other") is None
    home = Places.of(Path("/again"), str(Path.home() / "proj"), str(Path.home()))
    assert home.folder == Path("/again/folder")
    assert Places.of(Path("/again"), "", "").pairs == ()
    assert apart.outside("/opt/lib/x.py") == Path("/again/outside/opt/lib/x.py")


def capture(entry: EntryPoint, argv: list[str] | None = None, **variables: str) -> Captured:
    return Captured(
        command=Command(argv=argv if argv is not None else [PYTHON, "train.py"]),
        code=Code(entry=entry),
        environment=Environment(variables=variables),
    )


@pytest.mark.parametrize(
    ("found", "what", "why"),
    [
        (Captured(), "command", "it was not captured"),
        (capture(EntryPoint("prompt")), "entry", "typed at a prompt"),
        (
            capture(EntryPoint("program", "/bin/stemmata")),
            "training",
            "a stemmata command saved this version",
        ),
        (capture(EntryPoint("program", "/x/main.py", "stemmata.cli.main")), "training", "a stemmata command"),
        (capture(EntryPoint("script"), [PYTHON, "-I", "train.py"]), "command", "started with -I"),
        (capture(EntryPoint("script"), WORLD_SIZE="4"), "launcher", "one of 4 processes of a launcher"),
    ],
)
def test_what_nobody_can_run_again(found: Captured, what: str, why: str) -> None:
    said = commands.why_not(found)
    assert [m.what for m in said] == [what]
    assert why in said[0].why


def test_what_a_launcher_set_is_not_set_again() -> None:
    found = capture(EntryPoint("script"), WORLD_SIZE="1", RANK="0", SLURM_JOB_ID="7", TZ="UTC", LANG="***")
    assert not commands.why_not(found)
    variables, missing = commands.variables(found)
    assert variables == {"TZ": "UTC"}
    assert [m.what for m in missing] == ["variable LANG"]


@pytest.mark.parametrize(
    ("recorded", "text", "value"),
    [
        (2e-4, "1e-5", 1e-5),
        (3.0, "5", 5.0),
        (8, "16", 16),
        (True, "false", False),
        ("linear", "cosine", "cosine"),
        ("no", "1", "1"),
        (None, "0.1", 0.1),
        (None, "none", None),
        (None, "[1, 2]", [1, 2]),
        (None, "eval_loss", "eval_loss"),
        (1, 2, 2),
    ],
)
def test_values_have_the_type_that_was_recorded(recorded: object, text: Any, value: object) -> None:
    found = value_of("x", recorded, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("recorded", "text"), [(2e-4, "fast"), (8, "1.5"), (True, "1"), (8, "true")])
def test_other_values_are_refused(recorded: object, text: str) -> None:
    with pytest.raises(InvalidArgument, match="it was"):
        value_of("x", recorded, text)
