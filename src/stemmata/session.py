"""A session: one opened repository's storage, catalog and readers, bound together.

Owns reading a version's tree and objects, with the one rule about packs that vanish: read the
log again, resolve again, then report.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from stemmata import redirecting
from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog, is_usable, user_cache_folder
from stemmata.catalog.queries import VersionRow
from stemmata.deferred import deferred
from stemmata.errors import (
    CommitUnknown,
    Damage,
    DamagedLog,
    DamagedRepository,
    HostileData,
    MissingObject,
    MissingPack,
    StorageProblem,
    StorageReadOnly,
    VersionNotFound,
)
from stemmata.ids import Digest, PackName, VersionId
from stemmata.log.identity import Identity, read_identity
from stemmata.log.ops import Op
from stemmata.records import Record, decode_record
from stemmata.seen import Seen
from stemmata.storage.base import Buffer, Storage
from stemmata.storage.readonly import ReadOnlyStorage
from stemmata.trees import Tree, decode_tree, join_tree

if TYPE_CHECKING:
    from stemmata import objects, packs, transaction
    from stemmata.codecs.decoding import ObjectDecoder
    from stemmata.objects import ObjectReader
    from stemmata.packs import PackSummary
    from stemmata.transaction import Committed
else:
    objects = deferred("stemmata.objects")
    packs = deferred("stemmata.packs")
    transaction = deferred("stemmata.transaction")

_Found = TypeVar("_Found")


class Session:
    """Everything that the facade and its operations share. Safe to use from many threads."""

    def __init__(self, storage: Storage, *, author: str, up_to_damage: bool = False) -> None:
        if up_to_damage:
            storage = ReadOnlyStorage(storage, "it was opened to be read up to what is damaged in its log")
        self.storage = storage
        self.identity: Identity = read_identity(storage)
        # A cached catalog may know more than the log can still prove.
        self.catalog = (
            Catalog(storage, self.identity, []) if up_to_damage else Catalog.open(storage, self.identity)
        )
        self.damage: DamagedLog | None = None
        """Where the log that is read up to its damage ends, and why."""
        self._up_to_damage = up_to_damage
        self._names_then: tuple[object, dict[str, dict[VersionId, list[queries.RefRow]]]] | None = None
        self.author = author
        self._unread: set[PackName] = set()
        self._trees: dict[tuple[VersionId, tuple[str, ...]], Tree] = {}

    @cached_property
    def reader(self) -> ObjectReader:
        """Of stored objects. Made when it is asked for: names, metrics and lists are in the catalog."""
        return objects.ObjectReader(self.storage)

    def names_then(self, model: str, at: str) -> dict[VersionId, list[queries.RefRow]]:
        """What pointed at each version of a model (by key) at a time. The answers of the last time are kept:
        whoever lists versions as of then asks for each of them."""
        asked = (at, self.catalog.position.hash)
        of_models = self._names_then[1] if self._names_then is not None else {}
        if self._names_then is None or self._names_then[0] != asked:
            of_models = {}
            self._names_then = (asked, of_models)
        if model not in of_models:
            found: dict[VersionId, list[queries.RefRow]] = {}
            for ref in queries.refs(self.catalog.connection, model, at=at):
                found.setdefault(ref.target, []).append(ref)
            of_models[model] = found
        return of_models[model]

    def refresh(self) -> None:
        """Take in what other writers have committed. Raises RepositoryNotFound, DamagedRepository if it is
        no longer there: a log that ends where it begins tells no new repository from a removed one."""
        try:
            here = self.catalog.refresh()
            self.damage = None
        except DamagedLog as error:
            if not self._up_to_damage:
                raise
            self.damage, here = error, self.catalog.position
        if here.n == 0 and read_identity(self.storage) != self.identity:
            reason = "another repository has come in its place since it was opened"
            raise DamagedRepository(where=self.storage.where, reason=reason)

    @contextmanager
    def afresh(self) -> Iterator[Session]:
        """This session upon a fold of the log that no cache or checkpoint had a part in: what nobody can get
        back is decided by nothing else (I8). Itself, if it is one already; else of 100,000 versions seconds.

        Raises as `refresh`.
        """
        if self.catalog.file is None:  # in memory there is only what this process has folded
            yield self
            return
        sure = copy(self)
        sure.reader = self.reader  # one for both: it has to forget what is deleted
        sure.catalog = Catalog(self.storage, self.identity, [])
        try:
            sure.refresh()
            yield sure
        finally:
            sure.catalog.close()

    def commit(
        self, plan: Callable[[Catalog], Sequence[Op]], *, new_packs: Sequence[PackSummary] = ()
    ) -> Committed:
        if redirecting.is_on():
            plan = redirecting.only_adds(plan)
        done = transaction.commit(self.catalog, self.storage, plan, by=self.author, new_packs=new_packs)
        if done.txn is not None and self.catalog.position.n < done.position.n:
            # It is written. What is told of it would be what was before it.
            raise CommitUnknown(txn=done.txn, entry=done.position.n)
        return done

    def learn_packs(self) -> None:
        """Take in what other writers' packs hold, so that nothing in them is stored twice.

        A pack that cannot be read teaches nothing: a missed duplicate costs bytes, never correctness.
        """
        for _ in range(2):  # another file may take the catalog's place meanwhile, which was told of none
            for name in self.catalog.unremembered_packs():
                if name in self._unread:
                    continue
                try:
                    digests = list(packs.PackReader(self.storage, name).index.digests())
                except (Damage, StorageProblem):
                    # Asked once: a save must not grow slower with what is lost.
                    self._unread.add(name)
                    continue
                self.catalog.remember_pack(name, digests)

    def close(self) -> None:
        self.catalog.close()

    # --- reading versions -----------------------------------------------------------------

    def row(self, version: VersionId) -> VersionRow:
        """The catalog's row of a visible version. Raises VersionNotFound."""
        found = queries.version_by_id(self.catalog.connection, version)
        if found is None or found.state != "visible":
            reason, hint = "it is not in this repository", "stemmata log lists what is there"
            if found is not None:
                reason = (
                    f"{queries.model_name(self.catalog.connection, found.model)}@{found.name} was deleted"
                )
                if found.state == "deleted":
                    hint = f"bring it back with: stemmata restore {version.short}"
            raise VersionNotFound(reference=version.short, reason=reason, hint=hint)
        return found

    def record(self, row: VersionRow) -> Record:
        """The record, held against the version's id: the catalog is never evidence (I8)."""
        return decode_record(row.record, row.id)

    def tree(self, row: VersionRow) -> Tree:
        """The version's files, held against the record's content digest."""
        key = (row.id, tuple(row.tree))
        tree = self._trees.get(key)
        if tree is None:
            content = self.record(row).content
            tree_bytes = join_tree(row.id.short, (self.read_object(row, digest) for digest in row.tree))
            tree = decode_tree(tree_bytes, content, row.id.short)
            if len(self._trees) >= 16:
                self._trees.clear()
            self._trees[key] = tree
        return tree

    def packs(self, row: VersionRow) -> list[PackName]:
        return queries.packs_of(self.catalog.connection, row.seq)

    def packs_now(self, row: VersionRow) -> list[PackName]:
        """The packs of a version whose row may be old: a collection may have moved its objects since.

        Raises VersionNotFound if it was deleted.
        """
        self.refresh()
        return self.packs(self.row(row.id))

    def read_object(self, row: VersionRow, digest: str) -> bytes | bytearray:
        """Decoded, verified bytes of one object that `row` needs (I4)."""
        wanted = _digest(digest)
        try:
            return self.reader.read(wanted, self.packs(row))
        except (MissingPack, MissingObject):
            return self.reader.read(wanted, self.packs_now(row))

    def object_reader(self, row: VersionRow) -> VersionObjects:
        """A reader of `row`'s objects that looks its packs up once."""
        return VersionObjects(self, row)

    def object_filler(self, row: VersionRow) -> Callable[[str, memoryview], None]:
        """As `object_reader`, into memory that is given; see `ObjectReader.fill`."""
        packs, buffers = self.packs(row), objects.Room()

        def fill(digest: str, into: memoryview) -> None:
            nonlocal packs
            wanted = _digest(digest)
            try:
                self.reader.fill(wanted, packs, into, buffers)
            except (MissingPack, MissingObject):
                packs = self.packs_now(row)
                self.reader.fill(wanted, packs, into, buffers)

        return fill

    # --- caches ---------------------------------------------------------------------------

    def cache_folder(self) -> Path:
        """Where checkouts are cached: in a local repository, else (or if that cannot be
        written) in the user's cache folder."""
        return self.cache_folders()[0]

    def cache_folders(self) -> list[Path]:
        """All caches where checkouts may be: after the one in the repository the user's own, for what
        that user may not write to in the other."""
        inside = self.storage.cache_folder
        found = [inside] if inside is not None and is_usable(inside) else []
        try:
            found.append(user_cache_folder() / self.identity.repository)
        except RuntimeError as error:  # a user without a home
            if not found:
                reason = "checkouts need a folder, and this user has no home; set STEMMATA_CACHE to one"
                raise StorageReadOnly(where=self.storage.where, reason=reason) from error
        return found

    def version_of_path(self, path: str | os.PathLike[str]) -> VersionId | None:
        """The version whose shared checkout `path` is, if it is one and still visible."""
        resolved = Path(path).absolute()
        folders = [folder.absolute() / "checkouts" for folder in self.cache_folders()]
        inside = next((folder for folder in folders if resolved.is_relative_to(folder)), None)
        if inside is None:
            return None
        try:
            version = VersionId.parse(resolved.relative_to(inside).parts[0])
        except (ValueError, IndexError):
            return None
        found = queries.version_by_id(self.catalog.connection, version)
        return version if found is not None and found.state == "visible" else None


def seen_files() -> Seen:
    """What is known of files that were read before, by any process of this user."""
    try:
        return Seen(user_cache_folder() / "digests")
    except RuntimeError:
        return Seen(None)  # a user without a home


class VersionObjects:
    """Reads one version's objects, into memory that is used again. Safe in any thread."""

    def __init__(self, session: Session, row: VersionRow) -> None:
        self._session, self._row = session, row
        self._packs = session.packs(row)
        self._buffers = objects.Room()

    def __call__(self, digest: str) -> memoryview:
        """Decoded, verified bytes of one object (I4), the caller's until they are given back."""
        reader = self._session.reader
        return self._of(digest, lambda wanted, packs: reader.lend(wanted, packs, self._buffers))

    def length(self, digest: str) -> int:
        """Bytes of one object, decoded, as its pack's index has it: nothing of it is read."""
        return self._of(digest, self._session.reader.locate)[1].raw

    def _of(self, digest: str, use: Callable[[Digest, Sequence[PackName]], _Found]) -> _Found:
        wanted = _digest(digest)
        try:
            return use(wanted, self._packs)
        except (MissingPack, MissingObject):
            # For what is read after this too: a long checkout may outlive several collections.
            self._packs = self._session.packs_now(self._row)
            return use(wanted, self._packs)

    @contextmanager
    def opened(self, digest: str) -> Iterator[ObjectDecoder]:
        """One object as it is stored, to be decoded frame by frame: unverified. Raises as reading does."""
        with self._session.reader.opened(_digest(digest), self._packs, self._buffers) as (_, decoder):
            yield decoder

    def give_back(self, data: Buffer) -> None:
        """Let the memory be used for another object."""
        if isinstance(data, memoryview):
            self._buffers.give_back(data)


def _digest(text: str) -> Digest:
    """A digest that a record states. Raises HostileData for what is none."""
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise HostileData(where=f"digest {text[:80]!r}", reason=str(error)) from None
