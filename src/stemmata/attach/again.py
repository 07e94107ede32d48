"""Again: what is other in the Pythons of a command that is run again. Owns where they must not write, when a
Trainer stops, and which of its arguments are changed.

Runs in the command's own processes, before anything of theirs. Where it cannot be put in place the process
ends: a run that is made again must never write over what the first one left.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from stemmata.afterimport import Watcher
from stemmata.attach.settings import report_to
from stemmata.redirecting import VARIABLE

_FOLDERS = ("output_dir", "logging_dir")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING = {
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "shutil.rmtree": 1,
}
"""Events of Python's audit hooks by which files change, and how many of their first arguments are paths."""
_NATIVE = (("safetensors", "serialize_file", 1), ("torch.serialization", "save", 1))
"""What writes without Python's own open: module, function, and the place of the path."""
_PATHS = ("filename", "f")
_KEPT = "{path} is of the run that is made again, and stays as it is"


class Again(NamedTuple):
    """`guarded` folders are not written, but for what lies in `work` or in `free` ones. `steps`: a Trainer
    stops after so many. `changes`: training arguments that are other ones; `data`: by part, stored rows."""

    report: str
    work: str
    guarded: list[str]
    free: list[str]
    steps: int | None
    changes: dict[str, Any]
    data: dict[str, str]


def decode(environment: Mapping[str, str]) -> Again:
    return Again(**json.loads(environment[VARIABLE])["training"])


def install() -> None:
    """Guard, and wait for transformers, and for what writes without Python."""
    again = decode(os.environ)
    refuse = _refuser(again)
    sys.addaudithook(_hook(refuse))
    for module, name, place in _NATIVE:
        sys.meta_path.insert(0, _Watcher(module, functools.partial(_hold, name, place, refuse)))
    sys.meta_path.insert(0, _Watcher("transformers.training_args", lambda module: _arguments(module, again)))
    sys.meta_path.insert(0, _Watcher("transformers.trainer", lambda module: _trainer(module, again)))
    report_to(again.report, "ready", str(os.getpid()))


class _Watcher(Watcher):
    """A type of its own: others look for theirs on the path."""


# --- writing --------------------------------------------------------------------------------------


def _refuser(again: Again) -> Callable[[object], None]:
    """What raises PermissionError for a path in the guarded folders."""
    guarded = tuple(folder.rstrip(os.sep) + os.sep for folder in again.guarded)
    free = tuple(folder.rstrip(os.sep) + os.sep for folder in (again.work, *again.free))

    def refuse(path: object) -> None:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str | os.PathLike):
            return  # a descriptor: what opened it was looked at
        whole = os.path.realpath(path)
        if not (whole + os.sep).startswith(guarded) or whole.startswith(free):
            return
        if f"{os.sep}__pycache__{os.sep}" not in whole:  # Python goes on without that
            report_to(again.report, "refused", whole)
        raise PermissionError(errno.EACCES, _KEPT.format(path=whole), whole)

    return refuse


def _hook(refuse: Callable[[object], None]) -> Callable[[str, tuple[Any, ...]], None]:
    """Python's own ways to change files."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool(flags & _WRITES)
            if writes:
                refuse(path)
        else:
            for path in arguments[: _CHANGING.get(event, 0)]:
                refuse(path)

    return hook


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


def _place_of(again: Again, folder: object) -> str | None:
    """Where an output goes that would go elsewhere than into the work folder or a temporary one."""
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        return None
    whole = os.path.realpath(folder)
    for allowed in (again.work, tempfile.gettempdir()):
        if (whole + os.sep).startswith(os.path.realpath(allowed).rstrip(os.sep) + os.sep):
            inside = any((whole + os.sep).startswith(g.rstrip(os.sep) + os.sep) for g in again.guarded)
            if allowed == again.work or not inside:
                return None
    # Its last part stays: a model may be named after it.
    tag = hashlib.blake2b(os.fsencode(whole), digest_size=4).hexdigest()
    here = os.path.join(again.work, "outputs", tag, os.path.basename(whole))  # noqa: PTH118, PTH119
    report_to(again.report, "moved", f"{whole}\n{here}")
    return here


# --- transformers ---------------------------------------------------------------------------------


def _arguments(module: ModuleType, again: Again) -> None:
    """Let every kind of TrainingArguments get its changes before it looks at itself."""
    kind: Any = getattr(module, "TrainingArguments", None)
    if kind is None:
        return

    def new(cls: Any, *_args: Any, **_kwargs: Any) -> Any:
        _prepare(cls, again)
        return object.__new__(cls)

    kind.__new__ = staticmethod(new)


def _prepare(cls: Any, again: Again) -> None:
    """Wrap a class's own `__post_init__`, once: subclasses of others' libraries begin with theirs."""
    if "_stemmata_again" in vars(cls):
        return
    cls._stemmata_again = True
    theirs = cls.__post_init__

    @functools.wraps(theirs)
    def post_init(self: Any) -> None:
        if not vars(self).get("_stemmata_changed"):
            _change(self, again)
        theirs(self)

    cls.__post_init__ = post_init


def _change(arguments: Any, again: Again) -> None:
    vars(arguments)["_stemmata_changed"] = True
    for name in _FOLDERS:
        here = _place_of(again, getattr(arguments, name, None))
        if here is not None:
            setattr(arguments, name, here)
    for name, value in again.changes.items():
        if hasattr(arguments, name):
            setattr(arguments, name, value)
            report_to(again.report, "set", name)


def _trainer(module: ModuleType, again: Again) -> None:
    trainer: Any = getattr(module, "Trainer", None)
    if trainer is None:
        return
    theirs, saves = trainer.__init__, trainer.save_model

    @functools.wraps(theirs)
    def constructor(self: Any, *args: Any, **kwargs: Any) -> None:
        theirs(self, *args, **_with_rows(kwargs, again))
        report_to(again.report, "trainer", type(self).__name__)
        if again.steps is not None:
            self.add_callback(_stopping(again))

    @functools.wraps(saves)
    def save_model(self: Any, output_dir: Any = None, *args: Any, **kwargs: Any) -> Any:
        return saves(self, _place_of(again, output_dir) or output_dir, *args, **kwargs)

    trainer.__init__ = constructor
    trainer.save_model = save_model


def _with_rows(kwargs: dict[str, Any], again: Again) -> dict[str, Any]:
    """Rows that were stored in place of those that the script made: the Trainer is given what it was."""
    for part in ("train", "eval"):
        name, path = f"{part}_dataset", again.data.get(part)
        given = kwargs.get(name)
        if path is None or given is None or isinstance(given, dict):
            continue
        kwargs = {**kwargs, name: import_module("datasets").Dataset.from_file(path)}
        report_to(again.report, "rows", part)
    return kwargs


def _stopping(again: Again) -> Any:
    """A callback that ends a training after so many steps. The schedule stays what it was: nothing that is
    computed before is other for it."""
    base: Any = import_module("transformers.trainer_callback").TrainerCallback

    class Stopping(base):  # type: ignore[misc]
        def on_step_end(self, _args: Any, state: Any, control: Any, **_live: Any) -> Any:
            if again.steps is not None and state.global_step >= again.steps:
                control.should_training_stop = True
                report_to(again.report, "stopped", str(state.global_step))
            return control

    return Stopping()
