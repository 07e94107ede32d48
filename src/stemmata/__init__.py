"""stemmata: the version store for fine-tuned models.

    import stemmata
    repo = stemmata.open("models", create=True)

The public surface is `__all__`; its members are imported when first used, so that the command line
starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from stemmata.registration import install as _install_report_to

if TYPE_CHECKING:
    from stemmata.errors import StemmataError as StemmataError
    from stemmata.repository import Repository as Repository
    from stemmata.repository import init as init
    from stemmata.repository import open as open
    from stemmata.version import Version as Version
    from stemmata.versions import VersionList as VersionList

__version__ = "0.1.0"

_HOMES = {
    "Repository": "stemmata.repository",
    "StemmataError": "stemmata.errors",
    "Version": "stemmata.version",
    "VersionList": "stemmata.versions",
    "init": "stemmata.repository",
    "open": "stemmata.repository",
}

__all__ = ["Repository", "StemmataError", "Version", "VersionList", "__version__", "init", "open"]


# From here on `report_to="stemmata"` works; costs nothing until transformers is imported.
_install_report_to()


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stemmata' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
