"""Guard: what a command that is run again must not change. Owns which places those are, and how Python is
held back from them.

Nothing is written in guarded folders: those of the first run, its repository, its outputs. Elsewhere what was
there before the command began stays as it is; what is new may be made. Of a place in several folders the
innermost decides. What writes without Python passes, but for what is known of: `_NATIVE`, SQLite,
the usual programs for files.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from stemmata.afterimport import Watcher
from stemmata.attach import programs
from stemmata.attach.settings import report_to

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_Places = dict[str, tuple[tuple[int, int | None], ...]]
_MADE: _Places = {"os.mkdir": ((0, 2),), "os.symlink": ((1, 2),), "os.link": ((1, 3),)}
"""Events of Python's audit hooks by which a folder gets an entry: where among their arguments its path is,
and the folder that it is relative to."""
_CHANGED: _Places = {
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2),),
    "shutil.rmtree": ((0, None),),
}
"""Those by which an entry goes or becomes another one. Through a second hard link one could write."""
_WRITTEN: _Places = {
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
    "os.setxattr": ((0, None),),
    "os.removexattr": ((0, None),),
}
"""Those by which what a path leads to changes."""
_STARTED: dict[str, tuple[int, int | None]] = {
    "subprocess.Popen": (1, 2),
    "os.system": (0, None),
    "os.exec": (1, None),
    "os.posix_spawn": (1, None),
}
"""Those by which another program is started: where its command line is, and its working folder."""
_NATIVE = (("safetensors", "serialize_file", 1), ("torch.serialization", "save", 1))
"""What writes without Python's own open: module, function, and the place of the path."""
_PATHS = ("filename", "f")
_SYSTEM = ("/dev/", "/proc/", "/sys/")
_TEMPORARY = re.compile(r"(?:tmp|pymp-|torch|triton|cuda|matplotlib|ray|hsperf|stemmata-)")
"""How libraries call what they keep in the folder of temporary files, from one process to the next."""
_KEPT = "{path} was there before this run of the command, or is of the first one, and stays as it is"


class Guard:
    """`guarded` and `free` folders; when the command was started; the file that hears of refusals."""

    def __init__(self, guarded: Sequence[str], free: Sequence[str], since: float, report: str) -> None:
        self._guarded, self._free = list(map(folder_of, guarded)), list(map(folder_of, free))
        self._since, self._report = since, report
        self._made: set[str] = set()
        self._temporary = folder_of(os.path.realpath(tempfile.gettempdir()))

    def install(self) -> None:
        sys.addaudithook(self._hook)
        for module, name, place in _NATIVE:
            sys.meta_path.insert(0, Watcher(module, functools.partial(_hold, name, place, self.refuse)))
        sys.meta_path.insert(0, Watcher("sqlite3.dbapi2", self._read_only))

    def refuse(self, path: object, folder: object = -1) -> None:
        """Raises PermissionError for what must not be written: what `path` leads to, from the folder that
        `folder` is a descriptor of."""
        name = _name(path, folder)
        if name is not None:
            self._refuse(os.path.realpath(name))

    def refuse_entry(self, path: object, folder: object = -1, *, new: bool = False) -> None:
        """As `refuse`, for the entry of that name itself, which may be a link. A `new` one changes nothing
        that was there: where there is one already the system refuses it."""
        name = _name(path, folder)
        if name is None:
            return
        head, tail = os.path.split(name.rstrip(os.sep) or name)
        whole = os.path.join(os.path.realpath(head or os.curdir), tail)  # noqa: PTH118
        if not new or not os.path.lexists(whole):
            self._refuse(whole)

    def holds(self, whole: str) -> bool:
        """Whether it lies in a guarded folder, and in no free one within that."""
        within = depth(whole, self._guarded)
        return within > 0 and within > depth(whole, self._free)

    def _refuse(self, whole: str) -> None:
        if not self.holds(whole) and not self._was_there(whole):
            return
        if f"{os.sep}__pycache__{os.sep}" not in whole:  # Python goes on without that
            report_to(self._report, "refused", whole)
        raise PermissionError(errno.EACCES, _KEPT.format(path=whole), whole)

    def _was_there(self, whole: str) -> bool:
        """Whether something lies there that is older than the command, and is no cache's."""
        if whole in self._made or whole.startswith(_SYSTEM) or depth(whole, self._free):
            return False
        if whole.startswith(self._temporary) and _TEMPORARY.match(whole[len(self._temporary) :]):
            return False
        try:
            found = os.lstat(whole)
        except (OSError, ValueError):
            self._made.add(whole)  # a clock of another machine may give it any time
            return False
        kinds = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
        return any(is_it(found.st_mode) for is_it in kinds) and found.st_ctime < self._since

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's own ways to change files."""
        if event == "open":
            path, mode, flags = arguments
            if any(c in mode for c in "wax+") if isinstance(mode, str) else bool(flags & _WRITES):
                self.refuse(path)
        elif event in _STARTED:
            place, folder = _STARTED[event]
            self._start(arguments[place], next(_argument(arguments, folder), None))
        else:
            for place, folder in _WRITTEN.get(event, ()):
                self.refuse(arguments[place], *_argument(arguments, folder))
            for place, folder in _CHANGED.get(event, ()):
                self.refuse_entry(arguments[place], *_argument(arguments, folder))
            for place, folder in _MADE.get(event, ()):
                self.refuse_entry(arguments[place], *_argument(arguments, folder), new=True)

    def _start(self, command: object, folder: object) -> None:
        """Another program, as `rm -rf`: asked before it is started, as far as its words tell."""
        base = _name(folder, -1) or os.curdir
        for whole in programs.changed(command, base):
            self.refuse_entry(whole)
            self.refuse(whole)

    def _read_only(self, module: ModuleType) -> None:
        """A database may be read where it must not be written, and SQLite opens both in one way."""
        theirs = module.connect

        @functools.wraps(theirs)
        def connect(database: Any, *args: Any, **kwargs: Any) -> Any:
            name = _name(database, -1) or ""
            whole = os.path.realpath(name.removeprefix("file:").partition("?")[0])
            kept = name not in ("", ":memory:") and (self.holds(whole) or self._was_there(whole))
            if kept and not os.path.lexists(whole):
                self._refuse(whole)
            connection = theirs(database, *args, **kwargs)
            if kept:
                connection.execute("PRAGMA query_only = ON")
            return connection

        module.connect = connect  # type: ignore[attr-defined]


def _name(path: object, folder: object) -> str | None:
    """A path as text; None for a descriptor: what opened it was looked at."""
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    name = os.fsdecode(path)
    return f"/proc/self/fd/{folder}/{name}" if isinstance(folder, int) and folder >= 0 else name


def folder_of(path: str) -> str:
    """With a separator at its end, so that no other folder's name begins like it."""
    return path.rstrip(os.sep) + os.sep


def depth(whole: str, folders: Sequence[str]) -> int:
    """How long the innermost of the folders is that a place lies in; 0 for none."""
    return max((len(f) for f in folders if (whole + os.sep).startswith(f)), default=0)


def _argument(arguments: tuple[Any, ...], place: int | None) -> Iterator[Any]:
    if place is not None and place < len(arguments):
        yield arguments[place]


def _hold(name: str, place: int, refuse: Callable[[object], None], module: ModuleType) -> None:
    """Let a function that writes by itself ask first. `place`: of the path among its arguments."""
    theirs = getattr(module, name, None)
    if theirs is None:
        return

    @functools.wraps(theirs)
    def ask(*args: Any, **kwargs: Any) -> Any:
        refuse(args[place] if len(args) > place else next((kwargs[k] for k in _PATHS if k in kwargs), None))
        return theirs(*args, **kwargs)

    setattr(module, name, ask)


def caches() -> list[str]:
    """Where libraries keep what they can make again, by default."""
    return [str(Path.home() / place) for place in (".cache", ".triton", ".nv", ".local/share")]
