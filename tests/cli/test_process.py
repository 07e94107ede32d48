"""The command line as a process: pipes, interruption, terminals, tracebacks."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from makers import adapter_folder
from stemmata.cli import main
from stemmata.cli.commands import log

STEMMATA = [sys.executable, "-m", "stemmata.cli.main"]


def test_a_reader_that_leaves_is_no_error_on_the_screen(shop: Path) -> None:
    # Far more than a pipe holds, so that the writer is still writing when the reader has left.
    script = "import sys; from stemmata.cli import output, main; output.Output.document = lambda s, d: " + (
        "[sys.stdout.write('x' * 65536) for _ in range(64)]; sys.exit(main.run(['log', '--json']))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert err == b""


@pytest.mark.parametrize("words", [["log"], ["log", "--json"], ["show", "nosuch", "--json"]])
def test_a_full_disk_under_the_output_is_told_in_words(shop: Path, words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        said = subprocess.run(
            [*STEMMATA, *words], cwd=shop, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert said.returncode in (3, 6)
    assert said.stderr.startswith("error: ")
    assert "Traceback" not in said.stderr
    assert "Exception ignored" not in said.stderr


def test_an_error_that_cannot_be_said_keeps_its_exit_code(shop: Path) -> None:
    with open("/dev/full", "w") as full:
        said = subprocess.run(
            [*STEMMATA, "show", "nosuch", "--json"],
            cwd=shop,
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
        )
    assert said.returncode == 3
    assert b"model-not-found" in said.stdout


def test_it_runs_as_a_module_too() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "stemmata", "log", "--help"], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("Usage  stemmata log ")


def test_closed_streams_are_no_mistake(shop: Path) -> None:
    words = " ".join(STEMMATA)
    for redirection in ("<&- >&-", "<&- >&- 2>&-"):
        said = subprocess.run(
            ["bash", "-c", f"{words} log {redirection}"],
            cwd=shop,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (said.returncode, said.stderr) == (0, "")


def test_an_interrupt_before_the_command_is_130_without_a_word() -> None:
    script = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from stemmata.__main__ import main; main()"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (130, b"", b"")


def test_an_interrupt_is_130_and_says_what_is_safe(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(log, "open_repo", interrupted)
    assert main.run(["log"]) == 130
    err = capsys.readouterr().err
    assert err.startswith("error: interrupted")
    assert "Traceback" not in err


def test_a_bug_is_told_in_words_and_shown_in_full_on_request(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(log, "open_repo", broken)
    assert main.run(["log"]) == 1
    err = capsys.readouterr().err
    assert "a mistake of ours" in err
    assert "STEMMATA_DEBUG=1" in err
    monkeypatch.setenv("STEMMATA_DEBUG", "1")
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main.run(["log"])


def test_an_error_of_the_system_is_code_6(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/data")

    monkeypatch.setattr(log, "open_repo", failing)
    assert main.run(["log"]) == 6
    assert "Permission denied: /data" in capsys.readouterr().err


def in_terminal(arguments: list[str], answer: bytes = b"", **environment: str) -> tuple[int, str]:
    """Run in a terminal of its own; exit code and everything that was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*STEMMATA, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    if answer:
        os.write(ours, answer)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break  # Linux: the other side is closed
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(), shown.decode("utf-8", "replace")


def test_a_terminal_gets_colours_unless_it_wants_none(shop: Path) -> None:
    code, shown = in_terminal(["log"])
    assert code == 0
    assert "\x1b[" in shown
    _, shown = in_terminal(["log"], NO_COLOR="1")
    assert "\x1b[3" not in shown
    _, shown = in_terminal(["show", "nope@x"])
    assert "\x1b[1;31merror:" in shown


@pytest.mark.parametrize(("answer", "code", "kept"), [(b"n\n", 1, "old"), (b"y\n", 0, None)])
def test_a_terminal_is_asked_before_files_are_replaced(
    shop: Path, answer: bytes, code: int, kept: str | None
) -> None:
    target = adapter_folder(shop / "there", 1)
    (target / "adapter_config.json").write_text("old")
    done, shown = in_terminal(["checkout", "sentiment@v1", "-o", "there", "--force"], answer)
    assert "Replace 2 files in there" in shown
    assert done == code
    assert ((target / "adapter_config.json").read_text() == "old") == (kept == "old")


def test_a_killed_command_leaves_the_repository_as_it_was(shop: Path) -> None:
    process = subprocess.Popen([*STEMMATA, "check"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process.send_signal(signal.SIGTERM)
    process.wait()
    done = subprocess.run([*STEMMATA, "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("sound")


def test_names_in_any_script_survive_a_plain_terminal(shop: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    arguments = ["save", "out", "отзывы-評論", "--name", "один"]
    done = subprocess.run([*STEMMATA, *arguments], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    listing = subprocess.run([*STEMMATA, "log"], capture_output=True, env=environment, check=False)
    assert listing.returncode == 0
    assert b"Traceback" not in listing.stderr
