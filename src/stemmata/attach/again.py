"""Again: what is other in the Pythons of a command that is run again. Owns when a Trainer stops, which of
its arguments are changed, and that nothing is sent to a hub; `guard` owns where they must not write.

Runs in the command's own processes, before anything of theirs. Where it cannot be put in place the process
ends: a run that is made again must never write over what the first one left.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from stemmata.afterimport import Watcher
from stemmata.attach.guard import Guard, depth, folder_of
from stemmata.attach.settings import report_to
from stemmata.redirecting import VARIABLE

_FOLDERS = ("output_dir", "logging_dir")
_SENDING = re.compile(
    r"(?:create|delete|update|upload|move|preupload|add|super|permanently|duplicate|batch|copy|merge|rename|change"
    r"|comment|edit)_\w+"
)
"""Methods of the hub's client that change what is there."""


class Again(NamedTuple):
    """`guarded` folders are not written, and nothing changed that is older than `since`, but for what lies in
    `work` or in `free` ones. `steps`: a Trainer stops after so many. `changes`: training arguments that are
    other ones; `data`: by part, stored rows."""

    report: str
    work: str
    guarded: list[str]
    free: list[str]
    since: float
    steps: int | None
    changes: dict[str, Any]
    data: dict[str, str]


def decode(environment: Mapping[str, str]) -> Again:
    return Again(**json.loads(environment[VARIABLE])["training"])


def install() -> None:
    """Guard, and wait for transformers, and for what writes without Python."""
    again = decode(os.environ)
    Guard(again.guarded, [again.work, *again.free], again.since, again.report).install()
    sys.meta_path.insert(0, Watcher("huggingface_hub.hf_api", lambda module: _hub(module, again)))
    sys.meta_path.insert(0, Watcher("transformers.training_args", lambda module: _arguments(module, again)))
    sys.meta_path.insert(0, Watcher("transformers.trainer", lambda module: _trainer(module, again)))
    report_to(again.report, "ready", str(os.getpid()))


def _place_of(again: Again, folder: object) -> str | None:
    """Where an output goes that would go elsewhere than into the work folder or a temporary one."""
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        return None
    whole = os.path.realpath(folder)
    work, temporary = (folder_of(os.path.realpath(each)) for each in (again.work, tempfile.gettempdir()))
    guarded = list(map(folder_of, again.guarded))
    if depth(whole, [work]) or (depth(whole, [temporary]) and not depth(whole, guarded)):
        return None
    # Its last part stays: a model may be named after it.
    tag = hashlib.blake2b(os.fsencode(whole), digest_size=4).hexdigest()
    here = os.path.join(again.work, "outputs", tag, os.path.basename(whole))  # noqa: PTH118, PTH119
    report_to(again.report, "moved", f"{whole}\n{here}")
    return here


def _hub(module: ModuleType, again: Again) -> None:
    """Nothing is sent to a hub: there lies what the first run made, under the same name."""
    client: Any = getattr(module, "HfApi", None)
    for name in filter(_SENDING.fullmatch, dir(client)):

        def refuse(*_args: Any, _name: str = name, **_kwargs: Any) -> Any:
            report_to(again.report, "unsent", f"huggingface_hub's {_name}")
            raise PermissionError(errno.EACCES, f"{_name}: a run that is made again sends nothing to a hub")

        theirs = getattr(client, name)
        setattr(client, name, functools.wraps(theirs)(refuse))
        if hasattr(module, name):
            setattr(module, name, functools.wraps(theirs)(refuse))  # bound to a client already


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
    if getattr(arguments, "push_to_hub", False):
        arguments.push_to_hub = False
        report_to(again.report, "unsent", "push_to_hub")
    for name, value in again.changes.items():
        if hasattr(arguments, name):
            setattr(arguments, name, value)
            report_to(again.report, "set", name)


def _trainer(module: ModuleType, again: Again) -> None:
    trainer: Any = getattr(module, "Trainer", None)
    if trainer is None:
        return
    theirs, saves = trainer.__init__, trainer.save_model

    def push_to_hub(_self: Any, *_args: Any, **_kwargs: Any) -> None:
        report_to(again.report, "unsent", "Trainer.push_to_hub")

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
    trainer.push_to_hub = push_to_hub


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
