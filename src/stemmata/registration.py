"""Registration: makes `report_to="stemmata"` work once the package is imported.

Owns the wait for transformers: nothing of it is imported here. If its table of integrations is
already loaded the key is added at once, else in the moment that table is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = "stemmata"
_TABLE_MODULE = "transformers.integrations.integration_utils"
_REPORTER_MODULE = "stemmata.hf.reporting"


def install() -> None:
    """Add stemmata to transformers' integrations, now or when transformers is imported. Idempotent."""
    loaded = sys.modules.get(_TABLE_MODULE)
    if loaded is not None:
        _register(loaded)
    elif not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())


class Reporter:
    """What stands in the table: calling it makes the callback.

    The callback's own modules import transformers, which at registration is half imported itself.
    """

    def __new__(cls) -> Any:
        return importlib.import_module(_REPORTER_MODULE).Reporter()


def _register(table: ModuleType) -> None:
    integrations = getattr(table, "INTEGRATION_TO_CALLBACK", None)
    if isinstance(integrations, dict):
        integrations.setdefault(NAME, Reporter)


class _Watcher(MetaPathFinder):
    """Finds one module the way everybody else does, and asks to be told when it has run."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  (the protocol's)
        target: ModuleType | None = None,  # noqa: ARG002  (the protocol's)
    ) -> ModuleSpec | None:
        if fullname != _TABLE_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Notifier(spec.loader)
        return spec


class _Notifier(Loader):
    """The module's own loader, and the registration after it."""

    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = self.real
        module.__loader__ = self.real
        self.real.exec_module(module)
        _register(module)
