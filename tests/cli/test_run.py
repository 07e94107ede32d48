"""`stemmata run` without any training: exit status, signals, what is said, what is left alone."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stemmata.attach.settings import BOOTSTRAP
from warm import WarmPython

STEMMATA = [sys.executable, "-m", "stemmata.cli.main"]
MAIN = "from stemmata.cli.main import main; main()"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEMMATA_REPO", raising=False)
    return tmp_path


@pytest.fixture
def run(storing: WarmPython) -> Run:
    def call(*command: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[str]:
        return storing.run(MAIN, "run", "m", *options, "--", *command, **more)

    return call


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_the_commands(run: Run, status: int) -> None:
    done = run("sh", "-c", f"echo said; echo told >&2; exit {status}")
    assert done.returncode == status
    assert done.stdout == "said\n"
    assert done.stderr.startswith("told\n")
    assert "made no Trainer" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_death_by_signal_is_shown_as_a_shell_does(run: Run, number: signal.Signals) -> None:
    assert run("sh", "-c", f"kill -{number.value} $$").returncode == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command_and_its_answer_comes_back(
    storing: WarmPython, number: signal.Signals
) -> None:
    child = (
        "import signal, sys\n"
        f"signal.signal({number.value}, lambda n, f: sys.exit(40 + n))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    process = storing.piped(MAIN, "run", "m", "--", sys.executable, "-c", child)
    with process.stdin, process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait() == 40 + number


def _blocks(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("how", ["typed", "sent"])
def test_at_a_terminal_a_signal_reaches_the_command_once(number: signal.Signals, how: str) -> None:
    """The terminal sends what is typed to both, `kill` sends to one."""
    child = (
        "import signal, time\n"
        "came = []\n"
        f"signal.signal({number.value}, lambda n, f: came.append(n))\n"
        "print('ready', flush=True)\n"
        "while not came: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"  # for a second one
        "raise SystemExit(40 + len(came))\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(number, signal.SIG_DFL)  # what runs behind a shell has it ignored, and hands that on
        os.execv(sys.executable, [*STEMMATA, "run", "m", "--", sys.executable, "-c", child])
    try:
        said = b""
        while b"ready" not in said:
            said += os.read(terminal, 4096)
        if how == "sent":
            # Of one that comes before it waits for them it is not told who sent it, and takes it for typed.
            # They are blocked for a moment too while the command is started: then for good.
            seen = 0
            while hasattr(signal, "sigwaitinfo") and seen < 30:
                seen = seen + 1 if _blocks(pid, number) else 0
                time.sleep(0.01)
            os.kill(pid, number)
        else:
            os.write(terminal, b"\x03" if number == signal.SIGINT else b"\x1c")
        with suppress(OSError):  # the end of a terminal
            while os.read(terminal, 4096):
                pass
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 41
    finally:
        os.close(terminal)


def test_what_nohup_ignores_stays_ignored() -> None:
    child = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        command = [*STEMMATA, "run", "m", "--", sys.executable, "-c", child]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == "True\n"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_that_is_not_there_is_refused_by_name(run: Run) -> None:
    done = run("no-such-program")
    assert done.returncode == 2
    assert "'no-such-program' cannot be run" in done.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--every", "never"), "--every"),
        (("--every", "0"), "--every"),
        (("--run-name", "a b\n"), "name"),
        (("--keep", "newest"), "write 'all', a number"),
        (("--resume",), "give --run-name too"),
    ],
)
def test_settings_are_looked_at_before_the_start(run: Run, options: tuple[str, ...], word: str) -> None:
    done = run("touch", "started", options=options)
    assert done.returncode == 2
    assert word in " ".join(done.stderr.split())
    assert not Path("started").exists()


def test_a_folder_that_is_no_repository_is_refused_before_the_start(run: Run) -> None:
    Path("taken").mkdir()
    (Path("taken") / "file").touch()
    done = run("touch", "started", options=("-R", "taken"))
    assert done.returncode == 4
    assert not Path("started").exists()


def test_json_is_one_document_whatever_the_command_prints(run: Run) -> None:
    done = run("sh", "-c", "echo noise; exit 3", options=("--json",))
    assert json.loads(done.stdout) == {"status": 3, "trainers": 0, "runs": [], "warnings": []}
    assert "noise" in done.stderr
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("ends", "status"), [("exit 0", 0), ("exit 3", 3), ("exit 130", 130), ("kill -9 $$", 137)]
)
@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize("where", ["full", "left"])
def test_the_exit_status_is_the_commands_where_nothing_can_be_said(
    storing: WarmPython, ends: str, status: int, options: tuple[str, ...], where: str
) -> None:
    """A disk that is full, a reader that has left: the command's own result counts."""
    if where == "full":
        stream = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stream = os.pipe()
        os.close(reader)
    try:
        words = ("run", "m", *options, "--", "sh", "-c", ends)
        assert storing.start(MAIN, *words, files={1: stream, 2: stream}).wait() == status
    finally:
        os.close(stream)


def test_an_option_of_the_command_is_not_ours(run: Run) -> None:
    done = run("sh", "-c", "exit 4", "--json")
    assert done.returncode == 4
    assert done.stdout == ""


def test_other_programs_get_two_variables_and_nothing_else(run: Run) -> None:
    """No open files, no preloaded libraries: what trains nothing notices nothing."""
    look = "env -0 | tr '\\n' ' ' | tr '\\0' '\\n' | cut -d= -f1 | sort; ls /proc/self/fd"
    plain = subprocess.run(["sh", "-c", look], capture_output=True, text=True, check=True).stdout
    attached = run("sh", "-c", look).stdout
    assert set(attached.split()) - set(plain.split()) <= {"STEMMATA_RUN", "PYTHONPATH"}


def test_a_python_sees_its_own_path_and_its_own_sitecustomize(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("import sys\nsys.theirs = True\n")
    child = (
        "import sys, sitecustomize\n"
        f"assert {str(BOOTSTRAP)!r} not in sys.path, sys.path\n"
        "assert sys.theirs\n"
        f"assert sitecustomize.__file__ == {str(other / 'sitecustomize.py')!r}\n"
        "heavy = {'numpy', 'torch', 'transformers', 'msgspec'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    path = os.pathsep.join([str(other), os.environ.get("PYTHONPATH", "")])
    done = run(sys.executable, "-c", child, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr


def test_an_error_in_their_sitecustomize_is_shown_as_ever(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("raise ValueError('theirs')\n")
    path = os.pathsep.join([str(other), os.environ.get("PYTHONPATH", "")])
    done = run(sys.executable, "-c", "print('ran')", env={**os.environ, "PYTHONPATH": path})
    assert done.stdout == "ran\n"
    assert "Error in sitecustomize" in done.stderr
    assert "theirs" in done.stderr


def test_a_python_without_stemmata_runs_and_is_named(run: Run, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "stemmata").mkdir(parents=True)
    (hidden / "stemmata" / "__init__.py").write_text("raise ImportError('not here')\n")
    done = run(
        "sh",
        "-c",
        f'PYTHONPATH="$PYTHONPATH:{hidden}"; PYTHONPATH="${{PYTHONPATH%%:*}}:{hidden}" '
        f"exec {sys.executable} -W error -c 'print(1)'",
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    told = " ".join(done.stderr.split())
    assert "stemmata is missing in its Python" in told
    assert "not here" in told


def test_a_run_within_a_run_holds_its_own_settings(run: Run) -> None:
    child = (
        "import json, os\n"
        "print(json.loads(os.environ['STEMMATA_RUN'])['model'])\n"
        f"print(os.environ['PYTHONPATH'].split(os.pathsep).count({str(BOOTSTRAP)!r}))\n"
    )
    done = run(*STEMMATA, "run", "inner", "--", sys.executable, "-c", child)
    assert done.stdout == "inner\n1\n", done.stderr
