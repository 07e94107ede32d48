"""Registration: makes `report_to="stemmata"` work once the package is imported.

Owns the wait for transformers: nothing of it is imported here. If its table of integrations is
already loaded the key is added at once, else in the moment that table is loaded.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from stemmata.afterimport import Watcher

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


class _Watcher(Watcher):
    """Waits for the table; a type of its own, so that it is installed once."""

    def __init__(self) -> None:
        super().__init__(_TABLE_MODULE, _register)
