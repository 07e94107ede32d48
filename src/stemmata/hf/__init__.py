"""The bridge to transformers, trl and peft: the training callback and loading.

The only floor that knows torch; its parts are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from stemmata.errors import MissingExtra

if TYPE_CHECKING:
    from stemmata.hf.callback import VersionCallback as VersionCallback
    from stemmata.hf.loading import load_version as load_version

_HOMES = {"VersionCallback": "stemmata.hf.callback", "load_version": "stemmata.hf.loading"}

__all__ = ["VersionCallback", "load_version"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stemmata.hf' has no attribute {name!r}")
    try:
        value = getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "stemmata":
            raise
        raise MissingExtra(feature=f"stemmata.hf.{name}", package=error.name, extra="hf") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
