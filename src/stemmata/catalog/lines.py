"""Lines: what the catalog knows of one run's versions, all of them at once, and of who needs them.

A run is told by its id: two runs may have had one name. `model` is a model's key.
"""

# ruff: noqa: S608 - statements are put together from fixed parts; every value is a parameter

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from stemmata.catalog import selecting
from stemmata.catalog.conditions import Name
from stemmata.catalog.connection import Connection
from stemmata.catalog.facts import metric_of
from stemmata.catalog.filling import decode_metrics, need
from stemmata.catalog.queries import VersionRow
from stemmata.ids import VersionId
from stemmata.records import Run

DELETABLE = "deletable"
"""Label of a version that the policy of its run no longer needs; its value is that policy: `keep=3`."""

_OF_RUN = "v.model = ? AND v.run = ? AND v.run_id = ? AND +v.state = 'visible'"


def is_mark(label: str | None) -> bool:
    """Whether a value of that label was written by a policy; other words are somebody's own."""
    return label is not None and label.startswith("keep=")


def versions(connection: sqlite3.Connection, model: str, run: Run) -> list[VersionRow]:
    """The run's visible versions, in the order in which they were committed."""
    rows = selecting.versions(connection, model, run=run.name)
    return [row for row in reversed(rows) if row.run_id == run.id]


def name_of(connection: sqlite3.Connection, model: str, run_id: str) -> str | None:
    """The name of the run with this id, deleted versions included; None if the model has none of it."""
    sql = "SELECT run FROM versions WHERE model = ? AND run_id = ? ORDER BY seq DESC LIMIT 1"
    found = connection.execute(sql, (model, run_id)).fetchone()
    return None if found is None else str(found[0])


def metric(connection: sqlite3.Connection, model: str, run: Run, name: str) -> dict[VersionId, float]:
    """The metric's value of each version that has one; NaN is a value."""
    rows = _facts(connection, model, run, "metric", name)
    return {version: math.nan if number is None else float(number) for version, number, _ in rows}


def label(connection: sqlite3.Connection, model: str, run: Run, key: str) -> dict[VersionId, str]:
    """The label's value of each version that has it."""
    return {version: str(text) for version, _, text in _facts(connection, model, run, "label", key)}


def names(connection: sqlite3.Connection, model: str, run: Run) -> Iterator[tuple[VersionId, str, str]]:
    """Every name that points at one of the run's versions: version, kind (alias, tag, name), name."""
    # Not the view `refs`: SQLite would look at all that there are.
    sql = (
        f"SELECT v.id, 'name', v.name FROM versions v WHERE {_OF_RUN} UNION ALL"
        f" SELECT v.id, r.kind, r.name FROM versions v JOIN pointers r ON r.target = v.id WHERE {_OF_RUN}"
    )
    for target, kind, name in connection.execute(sql, (model, run.name, run.id) * 2).fetchall():
        yield VersionId(target), kind, name


def sources(connection: sqlite3.Connection, model: str, run: Run) -> set[VersionId]:
    """The run's versions that visible versions outside it, of any model, name as a parent."""
    outside = f"{_OF_RUN} AND child.state = 'visible' AND child.run_id IS NOT v.run_id"
    sql = (
        f"SELECT v.id FROM versions v JOIN versions child ON child.parent = v.id WHERE {outside} UNION"
        " SELECT v.id FROM versions v JOIN more_parents p ON p.parent = v.id"
        f" JOIN versions child ON child.seq = p.version WHERE {outside}"
    )
    found = connection.execute(sql, (model, run.name, run.id) * 2).fetchall()
    return {VersionId(row[0]) for row in found}


def bases(connection: sqlite3.Connection, after: int = 0) -> tuple[int, set[VersionId]]:
    """Versions that adapters committed after `after` name as their base; and how far that looked."""
    (newest,) = connection.execute("SELECT COALESCE(MAX(seq), 0) FROM versions").fetchone()
    sql = "SELECT base FROM versions WHERE base IS NOT NULL AND seq > ? AND seq <= ? AND kind = 'adapter'"
    found = {VersionId(base) for (base,) in connection.execute(sql, (after, newest)).fetchall()}
    return int(newest), found


def _facts(
    connection: sqlite3.Connection, model: str, run: Run, space: str, key: str
) -> list[tuple[VersionId, float | None, str | None]]:
    need(connection, [Name(key, space)], model)
    sql = (
        "SELECT v.id, f.num, f.text FROM versions v JOIN facts f ON f.version = v.seq AND f.key ="
        f" (SELECT id FROM keys WHERE space = ? AND key = ? AND model = ?) WHERE {_OF_RUN}"
    )
    found = connection.execute(sql, (space, key, model, model, run.name, run.id)).fetchall()
    return [(VersionId(row[0]), row[1], row[2]) for row in found]


def curve(
    connection: sqlite3.Connection, model: str, run: Run, metrics: Sequence[str]
) -> list[tuple[Any, ...]]:
    """The run's visible versions in the order in which they were committed: id, name, step, epoch, and of
    each metric its value, None where it has none or NaN.

    Told from the run's own rows: to make the facts of all versions of the model takes a long log a second.
    """
    try:
        return _curve(connection, model, run, metrics)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        if not isinstance(connection, Connection):
            raise
        # A sound file with damaged rows: the log has what they should say (I8).
        connection.distrust(str(error))
        return _curve(connection, model, run, metrics)


def _curve(
    connection: sqlite3.Connection, model: str, run: Run, metrics: Sequence[str]
) -> list[tuple[Any, ...]]:
    asked = (model, run.name, run.id)
    columns = "v.seq, v.metrics, v.id, v.name, v.step, v.epoch"
    sql = f"SELECT {columns} FROM versions v WHERE {_OF_RUN} ORDER BY v.seq"
    rows = connection.execute(sql, asked).fetchall()
    found = {row[0]: decode_metrics(row[1]) for row in rows}
    sql = (
        "SELECT a.version, a.metrics FROM annotations a JOIN versions v ON v.seq = a.version"
        f" WHERE {_OF_RUN} AND a.metrics != '{{}}' ORDER BY a.n, a.rowid"
    )
    for seq, text in connection.execute(sql, asked).fetchall():
        found.get(seq, {}).update(decode_metrics(text))
    return [(*row[2:], *(_number(found[row[0]].get(key)) for key in metrics)) for row in rows]


def _number(value: float | str | None) -> float | None:
    return None if value is None else metric_of(value)[0]


def runs(connection: sqlite3.Connection, model: str, least: int = 1) -> list[Run]:
    """The model's runs that have `least` visible versions or more, in the order in which they began."""
    sql = (
        "SELECT run_id, run FROM versions WHERE model = ? AND state = 'visible' AND run IS NOT NULL"
        " AND run_id IS NOT NULL GROUP BY run_id, run HAVING COUNT(*) >= ? ORDER BY MIN(seq)"
    )
    return [Run(*row) for row in connection.execute(sql, (model, least)).fetchall()]
