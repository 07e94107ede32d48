"""A Python that has imported torch and transformers already, and runs each script in a fork of itself.

Those imports take some ten seconds of a processor, in every process that begins with them; most scripts of
the tests are not about how they begin. What is about that (the order of imports, what a command attaches to
its children, memory) starts a process of its own. stemmata itself is imported anew by each script.
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
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_LONGEST = 1 << 20


class Script:
    """One that was started."""

    def __init__(self, reply: socket.socket) -> None:
        self._reply = reply.makefile("rb")
        reply.close()
        self.pid = int(self._reply.readline())

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
    """Start scripts in forks of one process. Ends with `close`."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def start(
        self,
        code: str,
        *arguments: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        out: int | None = None,
        err: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Script:
        """Begin `python -c CODE ARGUMENTS`; open files are passed on under their own numbers."""
        mine, theirs = socket.socketpair()
        asked = {
            "code": code,
            "arguments": arguments,
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "numbers": [1, 2, *pass_fds],
        }
        with theirs:
            files = [1 if out is None else out, 2 if err is None else err, *pass_fds, theirs.fileno()]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
            self._control.sendmsg([json.dumps(asked).encode()], rights)
        return Script(mine)

    def run(self, code: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """As subprocess.run(..., capture_output=True, text=True)."""
        with (
            open(os.memfd_create("out"), "r+b") as out,
            open(os.memfd_create("err"), "r+b") as err,
        ):
            status = self.start(code, *arguments, out=out.fileno(), err=err.fileno(), **more).wait()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(
                ["python", *arguments], status, out.read().decode(), err.read().decode()
            )

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
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(reply, f"{status}\n".encode())
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
    sys.argv = ["-c", *asked["arguments"]]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    return main


def _warm_up() -> None:
    sys.path[0] = str(HERE)  # of this file, as if it had been named
    import peft  # noqa: F401
    import transformers

    import tiny_models

    transformers.logging.set_verbosity_warning()
    assert tiny_models.Trainer
    assert not [name for name in sys.modules if name.partition(".")[0] == "stemmata"]
    # What is there stays: no child looks through it, and its pages stay shared.
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupted pytest needs it no more
    with socket.socket(fileno=int(sys.argv[1])) as _control:
        _warm_up()
        _script = _serve(_control)
    exec(compile(_script["code"], "<string>", "exec"), _become(_script).__dict__)
