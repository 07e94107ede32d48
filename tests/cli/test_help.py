"""Help: every command has an example, and asking for it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stemmata.cli.main import run
from stemmata.cli.registry import COMMANDS, load_command

EVERY = [*([name] for name in COMMANDS), ["alias", "set"], ["alias", "list"]]


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_every_command_has_help_with_an_example(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "\nExamples\n  $ stemmata " + command[0] in shown
    assert "<str>" not in shown


@pytest.mark.parametrize("command", [c for c in EVERY if c != ["alias"]], ids=" ".join)
def test_every_command_takes_json_and_documents_its_keys(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run([*command, "--help"])
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert "\nWith --json\n" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_in_the_table_is_the_commands_own(name: str) -> None:
    assert (load_command(name).help or "").split("\n\n")[0].replace("\n", " ") == COMMANDS[name].summary


def test_no_arguments_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_help_fits(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for command in EVERY:
        run([*command, "--help"])
    prose = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("  $ ")]
    assert max(map(len, prose)) <= max(width, 80)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["log", "--help"], ["save", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from stemmata.cli.main import run\n"
        f"assert run({arguments!r}) == 0\n"
        "heavy = {'numpy', 'torch', 'dateparser', 'zstandard', 'pydantic', 'rich', 'sqlite3'}\n"
        "found = heavy & set(sys.modules)\n"
        "sys.exit(str(sorted(found)) if found else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
