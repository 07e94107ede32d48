"""Upkeep: the part of the facade that keeps a repository in health: what goes, what stays, what it takes,
whether it is whole. Owns what people call for that; every operation itself lies below.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING

from stemmata import heads
from stemmata.catalog import queries
from stemmata.deferred import deferred
from stemmata.errors import ModelNotFound
from stemmata.ids import VersionId
from stemmata.names import clean_name, name_key
from stemmata.session import Session
from stemmata.version import Version

if TYPE_CHECKING:
    from stemmata import checking, collecting, deleting, redacting, repairing, retaining, retention, usage
    from stemmata.checking import Report
    from stemmata.collecting import Collection
    from stemmata.deleting import Deleted, Going
    from stemmata.redacting import Erased
    from stemmata.repairing import RepairReport
    from stemmata.retaining import Retained
    from stemmata.retention import Policy
    from stemmata.usage import Usage
else:
    checking = deferred("stemmata.checking")
    collecting = deferred("stemmata.collecting")
    deleting = deferred("stemmata.deleting")
    redacting = deferred("stemmata.redacting")
    repairing = deferred("stemmata.repairing")
    retaining = deferred("stemmata.retaining")
    retention = deferred("stemmata.retention")
    usage = deferred("stemmata.usage")

Target = Version | VersionId | str
"""How a version may be named in a call: itself, its id or a reference."""


class Upkeep:
    """What `Repository` is made on."""

    _session: Session

    def get(self, reference: Target) -> Version:
        """The version that a reference names; see `Repository.get`."""
        raise NotImplementedError

    def check(
        self,
        *,
        level: checking.Level = "full",
        sample: float | None = None,
        seed: int | None = None,
        resume: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Report:
        """Verify the repository as deep as `level` says: structure, stored or full; see `checking.check`."""
        return checking.check(
            self._session.storage, level=level, sample=sample, seed=seed, resume=resume, progress=progress
        )

    def repair(
        self,
        sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        *,
        versions: Target | Sequence[Target] | None = None,
        dry_run: bool = False,
        level: checking.Level = "full",
        progress: Callable[[int, int], None] | None = None,
    ) -> RepairReport:
        """Check, and mend what is damaged or missing in packs with what other copies here, cached checkouts
        and `sources` (other repositories, folders of model files, single files) have of it.

        What no source has stays as it is, and is named. `versions`: mend only packs that these need;
        `progress` is told how far the check is. Raises RepairSourceMissing, StorageReadOnly, and as `gc`.
        """
        given = [sources] if isinstance(sources, str | os.PathLike) else sources
        repairing.require_sources(given)
        chosen = None if versions is None else set(self._ids(versions, deleting.meant))
        found = self.check(level=level, progress=progress)
        return repairing.repair(self._session, found, given, versions=chosen, dry_run=dry_run)

    def accept_older(self) -> None:
        """Go on from a repository whose log ends before what this machine has seen: a restored backup."""
        heads.forget(self._session.storage, self._session.identity)

    def stats(self, model: str | None = None, *, progress: Callable[[int, int], None] | None = None) -> Usage:
        """How much space the repository takes, or one of its models: by model, run, version and codec,
        what dedup, deltas and casts saved, and how it grew. Sizes are bytes.

        `progress` gets how many packs and versions were looked at, and of how many. Raises ModelNotFound.
        """
        self._session.refresh()
        name = None
        if model is not None:
            name = queries.model_name(self._session.catalog.connection, self._model_key(model))
        return usage.measure(self._session, name, progress)

    def delete(
        self,
        versions: Target | Sequence[Target],
        *,
        why: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> list[Going]:
        """Hide versions, all or none; `restore` shows them again, for 14 days at least.

        Raises VersionInUse if an alias or tag points at one or (unless `force`) another version is loaded on
        it, AlreadyDeleted, VersionNotFound. With `dry_run` nothing is changed.
        """
        wanted = self._ids(versions, deleting.meant)
        return deleting.delete(self._session, wanted, why=why, force=force, dry_run=dry_run)[0]

    def restore(self, versions: Target | Sequence[Target]) -> list[Version]:
        """Show deleted versions again: by id, or by a name of theirs. Raises NotDeleted, UndoOver."""
        deleting.restore(self._session, wanted := self._ids(versions, deleting.restorable))
        return [self.get(v) for v in wanted]

    def deleted(self, model: str | None = None) -> list[Deleted]:
        """What can be restored, the last deleted first: when, by whom, why, until when."""
        self._session.refresh()
        return deleting.deleted(self._session, self._model_key(model) if model is not None else None)

    def retain(
        self,
        model: str,
        *,
        last: int | None = None,
        best: str | int | Sequence[str] | None = None,
        every: str | int | None = None,
        within: str | int | None = None,
        undo_window: str | int | None = None,
        why: str = "",
        dry_run: bool = False,
    ) -> Retained:
        """Set a model's policy and delete what it does not keep; without a rule, apply the stored one.

        Kept is what any rule keeps: the `last` N, the `best` ("2:eval_loss"), the newest of `every` "7d",
        what is `within` "30d" of the newest; and what an alias, a tag or a kept version's base needs.
        `undo_window` sets for how long a deletion can be undone at least. With `dry_run` nothing is
        changed. Raises NothingKept, InvalidArgument.
        """
        self._session.refresh()
        self._model_key(model)  # raises ModelNotFound
        policy = retention.Policy.of(last=last, best=best, every=every, within=within) or None
        if dry_run:
            return retaining.simulate(self._session, model, policy)
        window = None if undo_window is None else retention.seconds_of("undo_window", undo_window)
        return retaining.retain(self._session, model, policy, undo_window=window, why=why)

    def retention(self, model: str) -> Policy | None:
        """The model's policy, if it has one."""
        self._session.refresh()
        self._model_key(model)  # raises ModelNotFound
        return retaining.stored_policy(self._session, model)

    def redact(
        self,
        version: Target,
        kinds: str | Sequence[str],
        *,
        why: str = "",
        everywhere: bool = False,
        dry_run: bool = False,
    ) -> list[Erased]:
        """Hand out no more, for good, what a version's provenance says (`command`, `environment`, …).

        `everywhere`: of every version that holds the same bytes; collecting erases them. Raises Redacted.
        """
        wanted, target = [kinds] if isinstance(kinds, str) else kinds, self.get(version).id
        how = {"everywhere": everywhere, "dry_run": dry_run}
        return redacting.redact(self._session, target, wanted, why=why, **how)[0]

    def _ids(
        self, versions: Target | Sequence[Target], find: Callable[[Session, str], VersionId]
    ) -> list[VersionId]:
        self._session.refresh()
        given = [versions] if isinstance(versions, Version | VersionId | str) else versions
        return [
            v.id if isinstance(v, Version) else v if isinstance(v, VersionId) else find(self._session, v)
            for v in given
        ]

    def gc(
        self,
        *,
        dry_run: bool = False,
        undo_window: float | None = None,
        grace: float | None = None,
        now: float | None = None,
        trust_clock: bool = False,
        only: Container[VersionId] | None = None,
    ) -> Collection:
        """Free the bytes that no version needs; see `collecting.gc`."""
        return collecting.gc(
            self._session,
            dry_run=dry_run,
            undo_window=undo_window,
            grace=grace,
            now=now,
            trust_clock=trust_clock,
            only=only,
        )

    def repack(self, model: str | None = None, *, dry_run: bool = False) -> Collection:
        """Code tensors anew where that makes them smaller, in fewer packs; see `collecting.repack`."""
        self._session.refresh()
        key = self._model_key(model) if model is not None else None
        return collecting.repack(self._session, key, dry_run=dry_run)

    def _model_key(self, model: str) -> str:
        key = name_key(clean_name(model))
        known = queries.models(self._session.catalog.connection)
        if not any(m.key == key for m in known):
            names = ", ".join(m.name for m in known[:8]) or "none yet"
            raise ModelNotFound(model=model, hint=f"models here: {names}")
        return key
