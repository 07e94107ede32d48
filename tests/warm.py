"""A Python that has imported what takes long, and runs each script in a fork of itself.

torch and transformers take some ten seconds of a processor in every process that begins with them, stemmata
itself half a second; most scripts of the tests are not about how they begin. What is about that (the order of
imports, what a command attaches to its children, memory) starts a process of its own.
"""

from __future__ import annotations

import array
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
TRAINING = ("tiny_models", "peft")
"""Without stemmata: each script imports it as it would."""
STORING = ("stemmata.repository", "stemmata.cli.main", "stemmata.cli.output", "makers", "chained")
_LONGEST = 1 << 20


class Script:
    """One that was started. Its pipes are there where they were asked for."""

    stdin: IO[str]
    stdout: IO[str]

    def __init__(self, reply: socket.socket) -> None:
        self._reply = reply.makefile("rb")
        reply.close()
        self.pid = int(self._reply.readline())

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code, as subprocess tells it."""
        try:
            return int(self._reply.readline())
        except BaseException:  # whoever waited was interrupted: nobody would end it
            os.kill(self.pid, signal.SIGKILL)
            raise
        finally:
            self._reply.close()


class WarmPython:
    """Start scripts in forks of one process that has imported `modules`. Ends with `close`."""

    def __init__(self, *modules: str) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def start(
        self,
        code: str,
        *arguments: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        files: Mapping[int, int] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Script:
        """Begin `python -c CODE ARGUMENTS`, with open `files` as the numbers that the script knows."""
        mine, theirs = socket.socketpair()
        given = {1: 1, 2: 2, **dict(zip(pass_fds, pass_fds, strict=True)), **(files or {})}
        asked = {
            "code": code,
            "arguments": arguments,
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "numbers": list(given),
        }
        with theirs:
            rights = array.array("i", [*given.values(), theirs.fileno()])
            message = json.dumps(asked).encode()
            self._control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        return Script(mine)

    def piped(self, code: str, *arguments: str, **more: Any) -> Script:
        """Begin it with pipes to write to and to read from."""
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
        made = self.start(code, *arguments, files={0: theirs_in, 1: theirs_out}, **more)
        os.close(theirs_in)
        os.close(theirs_out)
        made.stdin, made.stdout = os.fdopen(ours_in, "w"), os.fdopen(ours_out)
        return made

    def run(self, code: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """As subprocess.run(..., capture_output=True, text=True)."""
        with open(os.memfd_create("out"), "r+b") as out, open(os.memfd_create("err"), "r+b") as err:
            files = {1: out.fileno(), 2: err.fileno()}
            status = self.start(code, *arguments, files=files, **more).wait()
            told = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
        return subprocess.CompletedProcess(["python", *arguments], status, *told)

    def close(self) -> None:
        self._control.close()
        self._process.wait()


# --- the process --------------------------------------------------------------------------------------


def _asked(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next script and its open files. Ends the process when nobody asks any more."""
    data, files, _, _ = socket.recv_fds(control, _LONGEST, 64)
    if not data:
        while True:
            try:
                os.wait()
            except ChildProcessError:
                os._exit(0)
    return json.loads(data), files


def _serve(control: socket.socket) -> dict[str, Any]:
    """Returns in each child, with what it is to run."""
    while True:
        asked, (*opened, reply) = _asked(control)
        if os.fork() == 0:
            break
        for file in (*opened, reply):
            os.close(file)
    control.close()
    # Between the server, which waits for nobody, and the script: tells how the script ends.
    child = os.fork()
    if child:
        for file in opened:
            os.close(file)
        os.write(reply, f"{child}\n".encode())
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert ended
        status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        os.write(reply, f"{status}\n".encode())
        # Until nobody can send it a signal any more, its number is not to become another's.
        os.read(reply, 1)
        os.waitpid(child, 0)
        os._exit(0)
    os.close(reply)
    _take_files(dict(zip(asked["numbers"], opened, strict=True)))
    return asked


def _take_files(files: dict[int, int]) -> None:
    """Put each open file where its number says."""
    above = max([*files, *files.values()]) + 1
    for number, file in files.items():
        os.dup2(file, above + number)
    os.closerange(3, above)
    for number in files:
        os.dup2(above + number, number)
        os.close(above + number)


def _become(asked: dict[str, Any]) -> types.ModuleType:
    """What a Python that begins with this script would have."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.path.remove(str(HERE))
    before = [f for f in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if f not in sys.path]
    sys.path[:0] = ["", *before]
    # The streams knew the files that were here before.
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.argv = ["-c", *asked["arguments"]]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    return main


def _warm_up(modules: Sequence[str]) -> None:
    assert sys.path[0] == str(HERE)
    for module in modules:
        import_module(module)
    # What is there stays: no child looks through it, and its pages stay shared.
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupted pytest needs it no more
    with socket.socket(fileno=int(sys.argv[1])) as _control:
        _warm_up(sys.argv[2:])
        _script = _serve(_control)
    exec(compile(_script["code"], "<string>", "exec"), _become(_script).__dict__)
