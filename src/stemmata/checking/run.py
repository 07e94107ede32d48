"""The check itself: identity, log, contents, names, what is derived, strangers. Owns their order."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from stemmata import heads, recovering
from stemmata.catalog import checkpointing
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.checkpoints import CheckpointName
from stemmata.checking.contents import Contents, Progress
from stemmata.checking.derived import check_derived
from stemmata.checking.extent import Extent, Level, Progressing
from stemmata.checking.placed import packs_of
from stemmata.checking.report import OLDER, Affected, Note, Problem, Report, reason_of
from stemmata.errors import Damage, DamagedLog, HostileData, StemmataError, StorageFailed
from stemmata.ids import PackName
from stemmata.log import verify
from stemmata.log.bundles import BundleName, missing_bundles
from stemmata.log.entries import Position, link_of, log_key
from stemmata.log.identity import Identity, read_identity
from stemmata.log.reader import exists, fetch
from stemmata.log.survey import last_entry
from stemmata.storage.base import Storage
from stemmata.storage.local import LocalStorage

_AGAIN = 5
"""Times that what seems damaged is looked at again while collections go on."""


def check(
    storage: Storage,
    *,
    level: Level = "full",
    sample: float | None = None,
    seed: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Verify a repository.

    `level`: `structure` reads the log and its chain, bundles, records, the indexes of packs, the headers of
    objects and the trees, and finds every object that a version or another object needs; `stored` also holds
    every stored byte against its digest; `full` also decodes every object and hashes every file.
    `sample`: a part of packs and versions (0.05) to which `stored` and `full` go; of the others the structure
    is checked. `seed` takes the same sample again. `resume` goes on where a check of this level was
    interrupted.

    Raises RepositoryNotFound if there is none, NewerFormat if a newer release wrote it, InvalidArgument.
    """
    extent = Extent(level, sample, seed, resume).seeded()
    report = Report(level=level, sample=sample, seed=extent.seed)
    identity = _check_identity(storage, report)
    if identity is None:
        return report
    catalog = _folded(storage, identity)
    try:
        _check_log(storage, identity, catalog, report)
        _check_contents(storage, identity, catalog, report, extent, progress)
        _check_refs(catalog, report)
        check_derived(storage, identity, catalog, report)
        _note_strangers(storage, catalog, report)
        _name_affected(catalog, report)
    finally:
        catalog.close()
    return report


def _folded(storage: Storage, identity: Identity) -> Catalog:
    """The fold of the log as far as it is whole, or could be made whole with what is here: damage in the log
    must hide none in packs. `_check_log` says where and why."""
    catalog = Catalog(storage, identity, [])
    try:
        catalog.refresh()
    except (DamagedLog, StorageFailed):
        with suppress(Damage, StorageFailed):
            mended = recovering.readable(storage)
            if mended is not storage:
                catalog.close()
                catalog = Catalog(mended, identity, [])
                catalog.refresh()
    return catalog


def _check_contents(
    storage: Storage,
    identity: Identity,
    catalog: Catalog,
    report: Report,
    extent: Extent,
    progress: Progress | None,
) -> None:
    done = Progressing(storage, identity.repository, catalog.position, extent)
    report.resumed = done.resumed
    before, live = len(report.problems), _live(catalog)
    try:
        Contents(storage, catalog, report, extent, done, progress).run()
        for _ in range(_AGAIN):
            found = report.problems[before:]
            if not found or not _has_lost(catalog, live):
                break
            # A collection beside this took packs away, and put what is needed of them elsewhere.
            live, counts = _live(catalog), replace(report.counts)
            del report.problems[before:]
            Contents(storage, catalog, report, extent, done, None).look_again(found)
            report.counts = counts
    except BaseException:
        done.write()
        raise
    done.finish()


def _live(catalog: Catalog) -> set[PackName]:
    return {pack.name for pack in packs_of(catalog) if not pack.retired}


def _has_lost(catalog: Catalog, live: set[PackName]) -> bool:
    """Whether the log has let go of any of these packs by now."""
    with suppress(StemmataError):
        catalog.refresh()
    return not live <= _live(catalog)


def _check_identity(storage: Storage, report: Report) -> Identity | None:
    """The repository's identity; where it is damaged, a stand-in that lets the rest be checked."""
    try:
        return read_identity(storage)
    except (Damage, StorageFailed) as error:
        report.problems.append(Problem("identity", "stemmata.json", reason_of(error)))
    with suppress(Damage, StorageFailed):
        return read_identity(recovering.readable(storage))
    link = None
    with suppress(StorageFailed):
        first = fetch(storage, 1)
        link = link_of(first) if first is not None else None
    if link is None:
        return None
    return Identity("0" * 32, 1, "", Position(0, link, ""))


def _check_log(storage: Storage, identity: Identity, catalog: Catalog, report: Report) -> None:
    """Verify all entries and bundles; `catalog` holds what could be folded."""
    report.counts.entries = catalog.position.n
    for problem in verify.verify_log(storage, identity):
        kind = "bundle" if problem.where.startswith("bundles/") else "log"
        report.problems.append(Problem(kind, problem.where, problem.reason))
    seen = heads.last_seen(storage, identity.repository)
    if seen is not None and seen[0] > catalog.position.n and not exists(storage, seen[0]):
        report.problems.append(Problem("log", log_key(seen[0]), OLDER))
    packs = (
        0
        if catalog.position.n
        else sum(PackName.in_key(key.key) is not None for key in storage.list("packs/"))
    )
    if packs:
        reason = f"it is empty, beside {packs} packs: a first save that was cut off, or a log that is gone"
        report.notes.append(Note("log", "log/", reason))
    for due in missing_bundles(storage, catalog.position.n):
        report.notes.append(Note("bundle", due, "it is due and not there, which costs time alone"))
    if checkpointing.wants_one(storage):
        reason = "one is due and not there, which costs time alone: stemmata gc writes it"
        report.notes.append(Note("checkpoint", "checkpoints/", reason))
    for key in storage.list("bundles/"):
        report.counts.bundles += 1
        report.counts.bytes += key.size
    report.counts.bytes += sum(key.size for key in storage.list("log/"))
    for n, reason in catalog.connection.execute("SELECT n, reason FROM voids ORDER BY n").fetchall():
        report.notes.append(Note("void", log_key(n), f"it has no effect: {reason}"))


def _check_refs(catalog: Catalog, report: Report) -> None:
    """Aliases and tags point at visible versions; the fold's rules leave no other state."""
    rows = catalog.connection.execute(
        "SELECT r.model, r.kind, r.name, r.target FROM pointers r LEFT JOIN versions v ON v.id = r.target"
        " WHERE r.kind IN ('alias', 'tag') AND (v.state IS NULL OR v.state != 'visible')"
    )
    for model, kind, name, target in rows.fetchall():
        where = f"{kind} {model}@{name}"
        report.problems.append(
            Problem("ref", where, f"it points at {target.hex()[:12]}, which is not visible")
        )


def _note_strangers(storage: Storage, catalog: Catalog, report: Report) -> None:
    """Note what lies in the store and belongs to no entry of the log."""
    keys = [key.key for key in storage.list("") if not key.key.startswith("log/")]
    unread = any(p.kind == "log" for p in report.problems)
    try:
        # After the listing: of what was saved since the check began the log tells by now.
        catalog.refresh()
    except StemmataError:
        unread = True
    beyond = unread and _goes_on(storage, catalog)
    states = dict(catalog.connection.execute("SELECT name, state FROM packs").fetchall())
    for key in keys:
        if key == "stemmata.json" or BundleName.parse(key) or CheckpointName.parse(key):
            continue
        if key.startswith("damaged/"):
            reason = "what was damaged before a recovery put it right; it may be deleted"
            report.notes.append(Note("aside", key, reason))
            continue
        if key.startswith("probes/"):
            reason = "of a collection that is going on or was cut off; the next gc deletes it"
            report.notes.append(Note("leftover", key, reason))
            continue
        name = PackName.in_key(key)
        state = states.get(name.raw) if name is not None else None
        if name is None:
            report.notes.append(Note("unknown", key, "stemmata does not write such a file"))
        elif state is None and beyond:
            reason = "no entry that can be read names this pack; one that cannot be may"
            report.notes.append(Note("unread", key, reason))
        elif state is None:
            report.notes.append(Note("orphan", key, "no save that was finished names this pack"))
        elif state == "dropped":
            report.notes.append(Note("orphan", key, "the log has dropped this pack; it may be deleted"))
    if isinstance(storage, LocalStorage):
        _note_leftovers(storage, report)


def _goes_on(storage: Storage, catalog: Catalog) -> bool:
    """Is there something of the log behind what could be read?"""
    try:
        return last_entry(storage) > catalog.position.n
    except HostileData:
        return True


def _note_leftovers(storage: LocalStorage, report: Report) -> None:
    try:
        left = sorted(entry.name for entry in (storage.root / "tmp").iterdir())
    except OSError:
        return
    for name in left:
        report.notes.append(
            Note("leftover", f"tmp/{name}", "a write that is going on or was cut off; never read")
        )


def _name_affected(catalog: Catalog, report: Report) -> None:
    wanted = {version for problem in report.problems for version in problem.versions}
    rows = catalog.connection.execute(
        "SELECT lower(hex(v.id)), m.name, v.name FROM versions v"
        " JOIN models m ON m.key = v.model ORDER BY v.seq"
    )
    report.affected += [Affected(*row) for row in rows.fetchall() if row[0] in wanted]
