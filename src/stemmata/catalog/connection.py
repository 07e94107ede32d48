"""Connections: one SQLite file, used from many threads. Owns what counts as a broken file.

A row is fetched under the lock that also guards the fold, so that no thread sees half an entry.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from stemmata.log.identity import KEY as IDENTITY_KEY
from stemmata.names import name_key
from stemmata.storage.mounts import is_network, mount_of

_FOLD_BUSY_SECONDS = 5.0
_CACHE_KIB = 64 << 10
"""Pages in memory, at most: the rows of a long log are put in all over the file."""
SIDES = ("", "-wal", "-shm", "-journal")
"""What a database's files are called beyond its name."""
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PLACE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_PERM,
    }
)


def is_damage(error: sqlite3.Error) -> bool:
    """Do the file's bytes make no sense?"""
    # Of text that is no UTF-8 Python's module tells by itself, without a code.
    return _code(error) in _DAMAGE or "decode to UTF-8" in str(error)


def is_place(error: sqlite3.Error) -> bool:
    """Does the place refuse: locked for long, full, read-only, failing?"""
    return _code(error) in _PLACE


def _code(error: sqlite3.Error) -> int:
    # Errors that Python's module raises by itself carry no code.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class _EagerCursor(sqlite3.Cursor):
    """Fetches when it executes: its rows are those of one moment."""

    _rows: Iterator[Any] = iter(())

    def execute(self, sql: str, parameters: Any = (), /) -> Self:
        super().execute(sql, parameters)
        self._rows = iter(super().fetchall())
        return self

    def __next__(self) -> Any:
        return next(self._rows)

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        wanted = self.arraysize if size is None else size
        return [row for _, row in zip(range(wanted), self._rows, strict=False)]


class Connection(sqlite3.Connection):
    """A connection that outlives its file: after damage, `execute` answers from the successor."""

    guard: Any
    """The catalog's lock."""
    heir: Connection | None = None
    mend: Callable[[sqlite3.Error], Connection] | None = None
    """Returns the successor of a connection whose file broke, or raises the error again."""

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(_EagerCursor if factory is None else factory)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        with self.guard:
            if self.heir is not None:
                return self.heir.execute(sql, parameters)
            try:
                # Not super().execute: whether that asks `cursor` differs between Python releases.
                cursor: sqlite3.Cursor = self.cursor().execute(sql, parameters)
                return cursor
            except sqlite3.DatabaseError as error:
                if self.mend is None or not (is_damage(error) or is_place(error)):
                    raise
                return self.mend(error).execute(sql, parameters)

    def change(self, work: Callable[[sqlite3.Cursor], None]) -> None:
        """Do something to the tables, in a transaction of its own."""
        with self.guard:
            if self.heir is not None:
                self.heir.change(work)
                return
            try:
                self._change(work)
            except sqlite3.DatabaseError as error:
                if self.mend is None or not (is_damage(error) or is_place(error)):
                    raise
                self.mend(error).change(work)

    def _change(self, work: Callable[[sqlite3.Cursor], None]) -> None:
        cursor = self.cursor(sqlite3.Cursor)
        cursor.execute("BEGIN IMMEDIATE")
        try:
            work(cursor)
            cursor.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                cursor.execute("ROLLBACK")
            raise

    def distrust(self, reason: str) -> None:
        """Have the file built anew: its rows are not what the log says. Raises sqlite3.DatabaseError."""
        with self.guard:
            if self.heir is not None:
                self.heir.distrust(reason)
                return
            error = sqlite3.DatabaseError(reason)
            if self.mend is None:
                raise error
            self.mend(error)


def connect(file: Path | None, guard: Any, *, busy: float | None = None) -> Connection:
    """Open `file`, or a database in memory. Raises sqlite3.Error and OSError."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        # SQLite itself would let nobody but its maker write; the umask decides: it may belong to a group.
        # One that is there is not opened for that: to close it would drop the locks of this process's other
        # connections to it, and another process that closes last takes their write-ahead log away.
        with suppress(FileExistsError):
            fd = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                _open_up(fd, file)
            finally:
                os.close(fd)
    connection = sqlite3.connect(
        file if file is not None else ":memory:",
        timeout=_FOLD_BUSY_SECONDS if busy is None else busy,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
    )
    connection.guard = guard
    connection.create_function("folded", 1, _folded, deterministic=True)
    try:
        # With WAL, "normal" is consistent after a power loss and waits for no disk at each commit.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if file is not None:
            _set_journal(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_up(fd: int, file: Path) -> None:
    """A catalog in a repository is for all who may write there, though its maker's umask be stricter: those
    who cannot write to it would fold the log again each time."""
    with suppress(OSError, AttributeError):  # elsewhere, or on a file system that has no modes
        wanted = stat.S_IMODE((file.parent.parent / IDENTITY_KEY).stat().st_mode) & 0o666
        os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | wanted)


def _folded(text: object) -> str | None:
    """`name_key`, as SQL's function of that name; NULL for what is no text."""
    return name_key(text) if isinstance(text, str) else None


def _set_journal(connection: Connection, file: Path) -> None:
    # Shared memory, which WAL needs, is not shared between the computers of a network drive.
    mode = "TRUNCATE" if is_network(mount_of(file.parent)) else "WAL"
    try:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    except sqlite3.OperationalError as error:
        # Another process is at it just now; whichever mode it leaves is as good.
        if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise


def throw_away(file: Path) -> None:
    """Remove a database and what SQLite keeps beside it."""
    for suffix in SIDES:
        with suppress(OSError):
            file.with_name(file.name + suffix).unlink()


def inode_of(file: Path | None) -> tuple[int, int] | None:
    """What tells a file from another one at its place; None where there is none."""
    if file is None:
        return None
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino
