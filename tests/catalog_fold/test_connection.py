"""The connection that many threads use."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stemmata.catalog.connection import Connection, connect, is_damage, is_place


@pytest.fixture
def connection():  # type: ignore[no-untyped-def]
    made = connect(None, threading.RLock())
    made.execute("CREATE TABLE t (a)")
    yield made
    made.close()


def test_rows_are_those_of_the_moment_of_execution(connection: Connection) -> None:
    connection.execute("INSERT INTO t VALUES (1), (2), (3)")
    cursor = connection.execute("SELECT a FROM t")  # no sorter in between
    connection.execute("DELETE FROM t")
    assert cursor.fetchone() == (1,)
    assert cursor.fetchmany(1) == [(2,)]
    assert list(cursor) == [(3,)]
    assert cursor.fetchone() is None
    assert cursor.fetchall() == []


def test_no_row_is_read_while_another_thread_holds_the_lock(connection: Connection) -> None:
    connection.execute("INSERT INTO t VALUES (1)")
    found: list[object] = []
    ready = threading.Event()

    def read() -> None:
        ready.set()
        found.append(connection.execute("SELECT COUNT(*) FROM t").fetchone())

    thread = threading.Thread(target=read)
    with connection.guard:
        connection.execute("BEGIN")
        connection.execute("DELETE FROM t")
        thread.start()
        assert ready.wait(10)
        connection.execute("ROLLBACK")
    thread.join()
    assert found == [(1,)]


def test_a_mistake_in_a_query_is_raised(connection: Connection) -> None:
    connection.mend = lambda error: pytest.fail("not for mistakes")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        connection.execute("SELECT * FROM nowhere")


def test_an_heir_answers(connection: Connection) -> None:
    heir = connect(None, connection.guard)
    connection.heir = heir
    assert connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (0,)
    heir.close()


def test_errors_that_come_without_a_code_are_neither() -> None:
    assert not is_damage(sqlite3.ProgrammingError("closed"))
    assert not is_place(sqlite3.ProgrammingError("closed"))


def test_another_connection_of_this_process_keeps_its_locks(tmp_path: Path) -> None:
    """A process that closes the file as its last user checkpoints the write-ahead log and removes it. It must
    not take itself for the last one because this process opened the file once more."""
    file = tmp_path / "catalog.sqlite"
    mine = connect(file, threading.RLock())
    mine.execute("CREATE TABLE t (a)")
    connect(file, threading.RLock()).close()
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('INSERT INTO t VALUES (1)')"
    subprocess.run([sys.executable, "-c", f"{script}; c.commit(); c.close()", str(file)], check=True)
    assert file.with_name(f"{file.name}-wal").exists()
    assert mine.execute("SELECT count(*) FROM t").fetchone() == (1,)
    mine.close()
