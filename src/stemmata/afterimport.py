"""After import: to be told when a module has run, without importing it. Refuses to import it early."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    # Importing it takes a twentieth of a short command's time; to be called, its methods are enough.
    from importlib.abc import Loader


class Watcher:
    """Finds one module the way everybody else does, and calls `then` with it when it has run.

    Put it first on `sys.meta_path`; it goes when the module runs.
    """

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self.name = name
        self.then = then
        self._asking = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  (the protocol's)
        target: ModuleType | None = None,  # noqa: ARG002  (the protocol's)
    ) -> ModuleSpec | None:
        if fullname != self.name or self._asking:
            return None
        # Stays on the path until the module runs: many only ask whether it is there.
        self._asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", _Notifier(spec.loader, self))
        return spec

    def done(self, module: ModuleType) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self.then(module)


class _Notifier:
    """The module's own loader, and the word to the watcher after it."""

    def __init__(self, real: Loader, watcher: Watcher) -> None:
        self.real = real
        self.watcher = watcher

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = self.real
        module.__loader__ = self.real
        self.real.exec_module(module)
        self.watcher.done(module)
