"""The recovery itself: look, plan, write, tell. Owns the order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stemmata import heads
from stemmata.errors import KeyMissing, RepositoryNotFound, StorageFailed
from stemmata.ids import Digest
from stemmata.log.identity import KEY as IDENTITY
from stemmata.log.identity import MAX_BYTES
from stemmata.log.reader import fetch
from stemmata.log.survey import MISSING, MOST_MISSING, Found, judge, last_entry, survey, unread
from stemmata.recovering.applying import apply_plan
from stemmata.recovering.bundling import mend_bundles
from stemmata.recovering.losing import Remains, unnamed_packs
from stemmata.recovering.origins import Bundles, Catalogs, Copy, Itself, Origin, identity_of, key_of
from stemmata.recovering.planning import (
    Plan,
    bytes_of,
    is_well,
    judge_identity,
    make_plan,
    proofs_of_bundles,
)
from stemmata.recovering.reading import MendedStorage
from stemmata.recovering.report import Recovered, RecoveryReport
from stemmata.storage.base import Storage


def recover(storage: Storage, *, sources: Sequence[Storage] = (), dry_run: bool = False) -> RecoveryReport:
    """Put the log of a repository right, with its bundles and `stemmata.json`; `sources` are other copies of
    it.

    Nothing is written that is not proven, and nothing at all where nothing is damaged. What lay in the place
    of what is put right is kept under `damaged/`. With `dry_run` nothing is written. Packs are not looked at.

    Raises RepositoryNotFound if there is none, NewerFormat if a newer release wrote it, and the storage's
    errors.
    """
    report = RecoveryReport(dry_run=dry_run)
    catalogs, itself = Catalogs(storage), Itself(storage)
    plan = _look(storage, sources, catalogs, itself)
    remains = None if plan.complete else Remains(storage, plan, itself)
    for n, right in sorted(plan.right.items()):
        report.recovered.append(Recovered(key_of(n), _was(plan, n), right.origin.name))
    if not dry_run:
        apply_plan(storage, plan, itself)
    report.recovered += mend_bundles(storage, plan, dry_run=dry_run)
    report.whole, report.entries = max(plan.whole, 0), plan.last
    _tell(storage, plan, remains, catalogs, report)
    return report


def readable(storage: Storage) -> Storage:
    """The repository as it will read once `recover` has put its log right with what is here; the storage
    itself, where nothing can be. Nothing is written. Raises as `recover`."""
    itself = Itself(storage)
    plan = _look(storage, (), Catalogs(storage), itself)
    kept = {key_of(n): bytes_of(right.origin, n, right, itself) for n, right in plan.right.items()}
    known = {key: data for key, data in kept.items() if data is not None}
    return MendedStorage(storage, known) if known else storage


def _look(storage: Storage, sources: Sequence[Storage], catalogs: Catalogs, itself: Itself) -> Plan:
    end = last_entry(storage)
    zero = _identity_there(storage)
    if end == 0 and zero.fault == MISSING:
        raise RepositoryNotFound(where=storage.where)
    found = {0: zero, **survey(storage, end)}
    proofs = _remembered(storage, sources, catalogs, end + MOST_MISSING)
    plan = _plan(storage, sources, dict(found), dict(proofs), catalogs, itself, end)
    # Which copy goes on shows by the log as it will be: its own beginning and end may be what is damaged.
    known = set(proofs)
    for n, digest in _continued(sources, plan, end):
        proofs.setdefault(n, digest)
    return plan if known == set(proofs) else _plan(storage, sources, found, proofs, catalogs, itself, end)


def _identity_there(storage: Storage) -> Found:
    try:
        return judge_identity(storage.get(IDENTITY, 0, MAX_BYTES + 1))
    except KeyMissing:
        return Found(MISSING)
    except StorageFailed as error:
        return Found(unread(error))


def _remembered(
    storage: Storage, sources: Sequence[Storage], catalogs: Catalogs, most: int
) -> dict[int, Digest]:
    """Hashes of entries up to `most` that this machine's memory and the catalogs hold."""
    known = [kept.repository for kept in catalogs.all]
    known += [identity.repository for s in (storage, *sources) if (identity := identity_of(s)) is not None]
    seen: list[tuple[int, Digest]] = []
    for repository in dict.fromkeys(known):
        catalogs.look(storage, repository)
        head = heads.last_seen(storage, repository)
        seen += [head] if head is not None else []
    seen += [(at.n, at.hash) for kept in catalogs.all if (at := kept.position) is not None]
    proofs: dict[int, Digest] = {}
    for n, digest in seen:
        if 0 < n <= most:
            proofs.setdefault(n, digest)
    return proofs


def _continued(sources: Sequence[Storage], plan: Plan, end: int) -> Iterator[tuple[int, Digest]]:
    """The last entry of each copy whose log goes on where this one ends once it is put right, or that has a
    log where this one has none: who names such a copy wants what it has."""
    here = plan.hash(end)
    for source in sources:
        n, identity = last_entry(source), identity_of(source)
        if here is None or n <= end or identity is None or identity.genesis.hash != plan.hash(0):
            continue
        there = fetch(source, end) if end else None
        if end and (there is None or Digest.of(there) != here):
            continue
        data = fetch(source, n)
        judged = judge(n, data) if data is not None else Found(MISSING)
        if judged.hash is not None:
            yield n, judged.hash


def _plan(
    storage: Storage,
    sources: Sequence[Storage],
    found: dict[int, Found],
    proofs: dict[int, Digest],
    catalogs: Catalogs,
    itself: Itself,
    end: int,
) -> Plan:
    found |= {n: Found(MISSING) for n in range(end + 1, max(proofs, default=0) + 1)}
    proofs |= proofs_of_bundles(storage, found)
    wanted = {n for n in found if n and not is_well(found, n)}
    origins: list[Origin] = [Bundles(storage, wanted, "a bundle"), catalogs, itself]
    origins += [Copy(source, wanted) for source in sources]
    return make_plan(storage, found, proofs, origins, itself, end)


def _was(plan: Plan, n: int) -> str:
    return plan.found[n].fault or "it is not what was written there"


def _tell(
    storage: Storage, plan: Plan, remains: Remains | None, catalogs: Catalogs, report: RecoveryReport
) -> None:
    report.breaks = list(plan.breaks)
    if plan.hash(0) is None:
        report.identity = plan.found[0].fault
    if plan.older:
        report.notes.append(
            f"the log was seen up to entry {plan.older} here, and ends at {plan.last}: a copy that has the "
            "rest brings it back, and stemmata check --accept-older goes on from this one"
        )
    if remains is not None:
        report.lost = remains.lost(catalogs.files)
        report.out_of_reach = remains.out_of_reach()
        report.unnamed_packs = unnamed_packs(storage, remains) if report.lost else 0
