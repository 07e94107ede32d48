"""Collecting: which stored bytes nobody needs any more, and how they go. Owns FORMAT.md, section 8.

    look        what is stored, who needs what of it        copies, picture
    decide      what is to go and what is written anew       planning
    write       new packs, durable and read back             rewriting, rebasing
    commit      one entry that places, forgets and retires   applying
    drop        after the readers' grace: commit, then delete   dropping

Every step may be cut off at any moment and is taken up by the next run. A byte is deleted only after the
log says that nobody can need it, folded anew for that, and never because of what a cache or a clock says.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stemmata.collecting.holding import Holding, Holdings, holdings
    from stemmata.collecting.merging import merge_small
    from stemmata.collecting.report import Collection
    from stemmata.collecting.run import gc, repack

__all__ = ["Collection", "Holding", "Holdings", "gc", "holdings", "merge_small", "repack"]

_HOMES = {
    "Collection": "report",
    "Holding": "holding",
    "Holdings": "holding",
    "gc": "run",
    "holdings": "holding",
    "merge_small": "merging",
    "repack": "run",
}


def __getattr__(name: str) -> Any:
    # When it is used: most saves ask only whether there is anything to merge.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
