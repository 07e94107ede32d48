"""Repairing: what is damaged or missing in packs, taken from where it still is. Owns that way back.

    find       what a check found, in which packs               checking
    look       other copies, cached checkouts, what was given   stock, sources, folders
    decide     what of each object stays, moves, is made anew   deciding, planning
    write      new packs, durable and read back                 writing
    commit     one entry that places versions and retires       collecting.applying

Nothing is deleted here: damaged packs are retired, and a collection deletes them after the readers' grace.
What cannot be had again stays as it is, and is named.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stemmata.repairing.report import Lost, RepairReport, Restored
    from stemmata.repairing.run import repair
    from stemmata.repairing.sources import require_sources

__all__ = ["Lost", "RepairReport", "Restored", "repair", "require_sources"]

_HOMES = {
    "Lost": "report",
    "RepairReport": "report",
    "Restored": "report",
    "repair": "run",
    "require_sources": "sources",
}


def __getattr__(name: str) -> Any:
    # When it is used: hardly any command repairs.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
