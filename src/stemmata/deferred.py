"""Deferred: modules that are imported when something of them is first used. Owns that wait, and no rule.

Half of what a short command takes would else be imports of what it never calls. Who defers a module tells
type checkers and import-linter of it as ever:

    if TYPE_CHECKING:
        from stemmata import moves
    else:
        moves = deferred("stemmata.moves")
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class _Deferred:
    """Stands for a module. Looks it up anew each time, so that a name which is replaced in it counts."""

    __slots__ = ("_module",)

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._module), name)

    def __repr__(self) -> str:
        return f"<{self._module}, when it is used>"


def deferred(module: str) -> Any:
    """The module of that name, imported in the moment when something of it is asked for."""
    return _Deferred(module)
