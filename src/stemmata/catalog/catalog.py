"""Catalog: the log, folded into SQLite and kept up to date. Owns when that cache is believed.

Before use, the last entry that the catalog took in is read from the log and must have the hash it had
then; if it has not, or the file is another repository's, damaged or out of reach, the log is folded anew:
into the file, into one in the user's cache folder, or into memory (I8). Where there is no file, a checkpoint
(see `restoring`) gives what the fold of its part of the log would.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Self

from stemmata.catalog.connection import Connection, connect, inode_of, is_damage, is_place, throw_away
from stemmata.catalog.packs import KnownPacks
from stemmata.catalog.recent import Recent, parse_position
from stemmata.catalog.schema import INDEX_NAMES, INDEXES, SCHEMA, TABLE_NAMES, VERSION, statements
from stemmata.catalog.state import SqliteState
from stemmata.deferred import deferred
from stemmata.errors import DamagedLog, InvalidArgument, StemmataError
from stemmata.ids import Digest
from stemmata.log.entries import Entry, Position, Void, unseal
from stemmata.log.fold import apply
from stemmata.log.identity import Identity
from stemmata.log.reader import exists, fetch, read_log, require_no_hole, require_whole
from stemmata.storage.base import Storage
from stemmata.storage.forks import held_at_forks
from stemmata.storage.mounts import has_shared_locks

if TYPE_CHECKING:
    from stemmata.catalog import restoring
else:
    restoring = deferred("stemmata.catalog.restoring")

FILE = f"catalog-v{VERSION}.sqlite"
_MENDS = 4
_LONG = 1000
"""Entries of a log after which it is quicker to make the indexes when all rows are there."""
_TABLES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
_POSITION = "SELECT value FROM meta WHERE key = 'position'"


def user_cache_folder() -> Path:
    """`STEMMATA_CACHE`, else the user's cache folder for stemmata."""
    chosen = os.environ.get("STEMMATA_CACHE")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "stemmata"


def catalog_files(storage: Storage, identity: Identity) -> list[Path]:
    """Where the catalog may live, best first. Empty for a repository that ends with its process."""
    files = [storage.cache_folder / FILE] if storage.cache_folder is not None else []
    if not storage.where.startswith("memory"):
        # Path.home() fails for a user without one; then there is no such folder.
        with suppress(RuntimeError):
            files.append(user_cache_folder() / identity.repository / FILE)
    # Two computers that do not see each other's locks would write into one file at once.
    return [file for file in files if has_shared_locks(file.parent)]


def is_usable(folder: Path) -> bool:
    """Can a cache lie there? The folder is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


class Catalog(KnownPacks):
    """A repository's catalog. Safe to use from many threads; any number of processes share the file."""

    def __init__(
        self,
        storage: Storage,
        identity: Identity,
        files: Iterable[Path],
        *,
        busy: float | None = None,
        checkpoints: bool = False,
    ) -> None:
        """`checkpoints`: where there is no file, begin with what the newest of them holds."""
        self.lock = held_at_forks(RLock())
        """Hold it to see several queries answered as of one moment."""
        self._storage, self._identity = storage, identity
        self._files = list(files)
        self._busy = busy
        self._checkpoints = checkpoints
        self.replaced: sqlite3.Error | None = None
        """Why the file that was there is used no more, if it is not."""
        self._inode: tuple[int, int] | None = None
        self._copied = False
        """Was the file made elsewhere, and may the log have been copied without some of its entries?"""
        self._pid = os.getpid()
        self._connection: Connection | None = None
        with self.lock:
            self._open()

    @classmethod
    def open(cls, storage: Storage, identity: Identity) -> Self:
        """Open without reading the log: `refresh` does that."""
        return cls(storage, identity, catalog_files(storage, identity), checkpoints=True)

    @property
    def connection(self) -> sqlite3.Connection:
        """For queries. A row is fetched by `execute` itself, so any thread may use it."""
        if self._pid != os.getpid():
            with self.lock:
                # SQLite's connections do not survive a fork.
                self._reopen_if_gone()
        return self._database

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def file(self) -> Path | None:
        """Where the catalog lives now; None: in memory."""
        return self._files[0] if self._files else None

    @property
    def position(self) -> Position:
        """How far the log has been taken in."""
        row = self.connection.execute(_POSITION).fetchone()
        return parse_position(row) or self._identity.genesis

    def close(self) -> None:
        with self.lock:
            old, self._connection = self._connection, None
            if old is not None:
                old.mend = None
                old.close()

    # --- following the log ----------------------------------------------------------------------

    def refresh(self) -> Position:
        """Take in what has been committed since; where the log ended.

        Raises DamagedLog, NewerFormat (what came before is taken in), and the storage's own errors.
        """
        with self.lock:
            self._reopen_if_gone()
            for _ in range(_MENDS):
                try:
                    return self._refresh()
                except sqlite3.Error as error:
                    self._replace(error)
            return self._refresh()

    def preview(self, after: Position, position: Position, entry: Entry) -> str | None:
        """Why `entry`, written right after `after`, would be void; None if it would not, or if the
        catalog is no longer at `after`. Changes nothing."""
        with self.lock:
            try:
                with self._undone():
                    if self._position() != after:
                        return None
                    return apply(SqliteState(self._database), position, entry)
            except sqlite3.Error as error:
                self._replace(error)
                return None

    def void_reason(self, n: int) -> str | None:
        """Why entry `n` has no effect; None if it has."""
        row = self.connection.execute("SELECT reason FROM voids WHERE n = ?", (n,)).fetchone()
        return str(row[0]) if row is not None else None

    def _refresh(self) -> Position:
        here = self._position()
        if here is not None and self._is_confirmed(here) and not exists(self._storage, here.n + 1):
            self._look_for_holes(here)
            return here
        with self._transaction():
            # Another process may have come first while this one waited for the lock.
            here = self._position()
            if here is None or not self._is_confirmed(here):
                self._wipe()
                here = self._identity.genesis
            return self._fold(here)

    def _is_confirmed(self, here: Position) -> bool:
        if here.n == 0:
            return here == self._identity.genesis
        data = fetch(self._storage, here.n)
        if data is None or Digest.of(data) == here.hash:
            return data is not None
        try:
            unseal(data)
        except ValueError as error:
            # The log is at fault. What is kept here of its end may be all that is left of it.
            raise DamagedLog(entry=here.n, reason=str(error)) from None
        return False

    def _look_for_holes(self, here: Position) -> None:
        """Who goes on from the middle of a log would take a hole for its end, or never see one before it."""
        if here.n == 0:
            # Empty, or without its first entry: the others would be missed in silence.
            require_no_hole(self._storage, 0)
            return
        signs = self._signs()
        if self._copied or "hole" in signs:
            require_whole(self._storage, here.n)
            self._copied = False
        elif "restored" in signs:
            # A checkpoint stands for what it goes up to, as a bundle does.
            require_no_hole(self._storage, here.n)
        else:
            return
        with suppress(sqlite3.Error):
            self._run(["DELETE FROM meta WHERE key IN ('hole', 'restored')"])
            self._sign()

    def _signs(self) -> set[str]:
        """Was the log found to end at a hole; is what comes before out of a checkpoint?"""
        cursor = self._database.cursor(sqlite3.Cursor)
        return {key for (key,) in cursor.execute("SELECT key FROM meta WHERE key IN ('hole', 'restored')")}

    def _sign(self) -> None:
        """Say in the file which one it is, so that a copy of it is known for a copy."""
        inode = inode_of(self.file)
        if inode is not None:
            # Of a network drive each computer sees another device.
            sql = "INSERT OR REPLACE INTO meta VALUES ('inode', ?)"
            self._database.cursor(sqlite3.Cursor).execute(sql, (str(inode[1]),))

    def _fold(self, here: Position) -> Position:
        is_long = here.n == 0 and exists(self._storage, _LONG)
        if is_long:
            self._run([f"DROP INDEX {name}" for name in INDEX_NAMES])
        state, recent = SqliteState(self._database, long=True, bare=is_long), Recent()

        def settle() -> None:
            """What came before stands, also when the log turns out damaged further on."""
            state.flush()
            recent.write(self._database.cursor(sqlite3.Cursor), here.n)
            self._remember(here)

        try:
            for position, found, data in read_log(self._storage, here):
                reason = found.reason if isinstance(found, Void) else apply(state, position, found)
                if reason is not None:
                    state.add_void(position.n, reason)
                recent.add(position.n, data)
                here = position
            self._look_for_holes(here)
        except StemmataError as error:
            settle()
            if isinstance(error, DamagedLog) and not exists(self._storage, here.n + 1):
                # Only a reader from the beginning looks for holes: let the next one do so too.
                self._run(["INSERT OR REPLACE INTO meta VALUES ('hole', '')"])
            raise
        settle()
        return here

    def keep_hints(self, *changes: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        """Write rows that the log does not say, each statement with its rows. They may be lost. What the log
        says is not: the file that takes this one's place, should it fail, has followed it. Raises as
        `refresh`."""
        with self.lock:
            try:
                self._keep(changes)
            except sqlite3.Error as error:
                self._mend(error)
                with suppress(sqlite3.Error):
                    self._keep(changes)

    def _keep(self, changes: Sequence[tuple[str, Sequence[tuple[object, ...]]]]) -> None:
        with self._transaction():
            cursor = self._database.cursor(sqlite3.Cursor)
            for sql, rows in changes:
                cursor.executemany(sql, rows)

    # --- the file -------------------------------------------------------------------------------

    @property
    def _database(self) -> Connection:
        if self._connection is None:
            raise InvalidArgument(argument="repository", reason="it was closed; open it again")
        return self._connection

    def _open(self) -> None:
        """Connect to the first place that works, with all tables there."""
        old, self._connection = self._connection, None
        if old is not None:
            old.mend = None
            old.close()
        thrown_away = False
        while self._connection is None:
            file = self.file
            try:
                if file is not None and self._checkpoints and not file.exists():
                    restoring.restore(self._storage, self._identity, file)
                connection = connect(file, self.lock, busy=self._busy)
                try:
                    self._connection = connection
                    self._prepare()
                except BaseException:
                    self._connection = None
                    connection.close()
                    raise
                self._inode = inode_of(file)
            except (sqlite3.Error, OSError) as error:
                if file is None:
                    raise
                if isinstance(error, sqlite3.Error) and not is_place(error) and not thrown_away:
                    throw_away(file)
                    thrown_away = True
                else:
                    del self._files[0]
                    thrown_away = False
        self._connection.mend = self._mend
        if old is not None:
            old.heir = self._connection

    def _prepare(self) -> None:
        if self._is_ours():
            return
        with self._transaction():
            if not self._is_ours():
                self._wipe()

    def _is_ours(self) -> bool:
        try:
            cursor = self._database.cursor(sqlite3.Cursor)
            rows = dict(cursor.execute("SELECT key, value FROM meta").fetchall())
            tables = {row[0] for row in cursor.execute(_TABLES).fetchall()}
        except sqlite3.OperationalError as error:
            if is_place(error) or is_damage(error):
                raise
            return False  # no such table: a new file
        if not tables >= TABLE_NAMES:
            return False
        inode = inode_of(self.file)
        self._copied = inode is not None and rows.get("inode") != str(inode[1])
        return rows.get("schema") == str(VERSION) and rows.get("repository") == self._identity.repository

    def _wipe(self) -> None:
        """Back to an empty catalog, inside the caller's transaction."""
        cursor = self._database.cursor(sqlite3.Cursor)
        # Views first: while one is there, SQLite checks at each drop what it speaks of.
        listing = (
            "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view')"
            " AND name NOT LIKE 'sqlite_%' ORDER BY type DESC"
        )
        for kind, name in cursor.execute(listing).fetchall():
            quoted = str(name).replace('"', '""')
            cursor.execute(f'DROP {kind} "{quoted}"')
        for statement in statements(SCHEMA + INDEXES):
            cursor.execute(statement)
        rows = [
            ("schema", str(VERSION)),
            ("repository", self._identity.repository),
            ("identity", f"{self._identity.format} {self._identity.created}"),
        ]
        cursor.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        self._sign()
        self._remember(self._identity.genesis)

    def _run(self, statements: Iterable[str]) -> None:
        cursor = self._database.cursor(sqlite3.Cursor)
        for statement in statements:
            cursor.execute(statement)

    def _position(self) -> Position | None:
        """As the file says; None if it says nothing that can be read."""
        cursor = self._database.cursor(sqlite3.Cursor)
        return parse_position(cursor.execute(_POSITION).fetchone())

    def _remember(self, here: Position) -> None:
        value = f"{here.n} {here.hash.hex} {here.effective}"
        sql = "INSERT OR REPLACE INTO meta VALUES ('position', ?)"
        self._database.cursor(sqlite3.Cursor).execute(sql, (value,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        cursor = self._database.cursor(sqlite3.Cursor)
        cursor.execute("BEGIN IMMEDIATE")
        try:
            yield
        except StemmataError:
            # The log cannot be read further; what came before is sound.
            cursor.execute("COMMIT")
            raise
        except BaseException:
            with suppress(sqlite3.Error):
                cursor.execute("ROLLBACK")
            raise
        try:
            cursor.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                cursor.execute("ROLLBACK")
            raise

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """A transaction that leaves no trace."""
        cursor = self._database.cursor(sqlite3.Cursor)
        cursor.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                cursor.execute("ROLLBACK")

    def _reopen_if_gone(self) -> None:
        """A cache may vanish at any time, or be replaced; a forked process needs its own connection."""
        if self.file is None or self._connection is None:
            return
        if self._inode == inode_of(self.file) and self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._open()

    def _replace(self, error: sqlite3.Error) -> None:
        """After an error of SQLite: a new file in place of a broken one, or the next place."""
        file = self.file
        if file is None:
            raise error  # memory does not break; this is a mistake of ours
        # Should it be of a checkpoint, that would make the same file again.
        self._checkpoints, self.replaced = False, error
        if is_place(error):
            del self._files[0]
        else:
            throw_away(file)
        self._open()

    def _mend(self, error: sqlite3.Error) -> Connection:
        """A query met a broken file."""
        self._replace(error)
        self.refresh()
        return self._database
