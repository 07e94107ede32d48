"""The bridge to Lightning: a callback for its Trainer that saves as the one of Hugging Face's does.

Its parts are imported when first used; it builds on `stemmata.hf`, which takes and writes the versions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from stemmata.errors import MissingExtra

if TYPE_CHECKING:
    from stemmata.lightning.callback import VersionCallback as VersionCallback

__all__ = ["VersionCallback"]


def __getattr__(name: str) -> object:
    if name != "VersionCallback":
        raise AttributeError(f"module 'stemmata.lightning' has no attribute {name!r}")
    try:
        value = import_module("stemmata.lightning.callback").VersionCallback
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "stemmata":
            raise
        missing = MissingExtra(feature="stemmata.lightning", package=error.name, extra="lightning")
        raise missing from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
