"""Bundling: damaged and missing bundles made anew. Owns when one may go.

A bundle is never needed, and a damaged one goes only when all its entries are sound in `log/`: until then it
may hold the only copy of some.
"""

from __future__ import annotations

from stemmata.log.bundles import LEVELS, BundleName, find_bundles, write_bundle
from stemmata.log.verify import wrong_bundle
from stemmata.recovering.planning import Plan
from stemmata.recovering.report import Recovered
from stemmata.storage.base import Storage

_SOURCE = "the entries of the log"


def mend_bundles(storage: Storage, plan: Plan, *, dry_run: bool) -> list[Recovered]:
    """Write what is due and not there in a sound copy, then delete the damaged ones."""
    known = ((n, plan.hash(n)) for n in range(1, plan.whole + 1))
    hashes = {n: digest for n, digest in known if digest is not None}
    sound: list[BundleName] = []
    wrong: list[tuple[BundleName, str]] = []
    for name in find_bundles(storage):
        reason = wrong_bundle(storage, name, hashes) if name.last <= plan.whole else None
        if reason is None:
            sound.append(name)
        else:
            wrong.append((name, reason))
    done = [Recovered(name.key, reason, _SOURCE) for name, reason in wrong]
    for below, level in zip((1, *LEVELS), LEVELS, strict=False):
        for first in range(1, plan.whole - level + 2, level):
            if any(b.level == level and b.first == first for b in sound):
                continue
            if not any(b.level == level and b.first == first for b, _ in wrong):
                name = BundleName(level, first, first + level - 1, "")
                done.append(Recovered(name.key.replace("-.", "."), "it is missing", _SOURCE))
            if not dry_run:
                write_bundle(storage, level, first, [b for b in sound if b.level == below])
                sound += [
                    b for b in find_bundles(storage) if b not in sound and _is_new(b, level, first, wrong)
                ]
    if not dry_run:
        for name, _ in wrong:
            storage.delete(name.key)
    return done


def _is_new(bundle: BundleName, level: int, first: int, wrong: list[tuple[BundleName, str]]) -> bool:
    return bundle.level == level and bundle.first == first and all(bundle != name for name, _ in wrong)
