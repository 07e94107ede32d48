"""Index: keys and scores of examples in a table on disk, so that very many need little memory."""

# ruff: noqa: S608 - statements are put together from parts that stand here or in `comparing`

from __future__ import annotations

import sqlite3
from typing import Any, Self

_AT_ONCE = 10_000
_CACHE_KIB = 32 << 10
_MATCHED = "FROM only_a a JOIN only_b b ON a.key = b.key"
SCORED = "a.score IS NOT NULL AND b.score IS NOT NULL"
"""The condition that a matched pair has scores."""


class Index:
    """Two tables, `a` and `b`. A key that occurs twice on a side matches nothing."""

    def __init__(self) -> None:
        # Without a name SQLite keeps it in a file of its own that is gone when it is closed.
        self._connection = sqlite3.connect("", isolation_level=None)
        self._do(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._do("PRAGMA journal_mode = OFF")
        for side in "ab":
            self._do(f"CREATE TABLE {side} (key BLOB, line INTEGER, score REAL)")
        self._pending: dict[str, list[tuple[bytes | None, int, float | None]]] = {"a": [], "b": []}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add(self, side: str, line: int, key: bytes | None, score: float | None) -> None:
        pending = self._pending[side]
        pending.append((key, line, score))
        if len(pending) >= _AT_ONCE:
            self._write(side)

    def _write(self, side: str) -> None:
        self._do("BEGIN")
        insert = f"INSERT INTO {side} VALUES (?, ?, ?)"
        self._connection.executemany(insert, self._pending[side])
        self._do("COMMIT")
        self._pending[side].clear()

    def _do(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: Any) -> Any:
        return self._do(sql, *values)[0][0]

    def settle(self) -> None:
        """All has been added: make it ready for questions."""
        for side in "ab":
            self._write(side)
            self._do(f"CREATE INDEX keys_{side} ON {side} (key, line)")
            self._do(
                f"CREATE TABLE twice_{side} AS SELECT key, MIN(line) AS line FROM {side}"
                " WHERE key IS NOT NULL GROUP BY key HAVING COUNT(*) > 1"
            )
            self._do(
                f"CREATE VIEW only_{side} AS SELECT key, line, score FROM {side}"
                f" WHERE key IS NOT NULL AND key NOT IN (SELECT key FROM twice_{side})"
            )

    def twice(self, side: str, most: int) -> list[tuple[int, int]]:
        """The first two lines of keys that occur more than once, a few of them."""
        found = []
        for (key,) in self._do(f"SELECT key FROM twice_{side} ORDER BY line LIMIT ?", most):
            lines = self._do(f"SELECT line FROM {side} WHERE key = ? ORDER BY line LIMIT 2", key)
            found.append((lines[0][0], lines[1][0]))
        return found

    def count_twice(self, side: str) -> int:
        """Keys that occur more than once."""
        return int(self._one(f"SELECT COUNT(*) FROM twice_{side}"))

    def unkeyed(self, side: str) -> int:
        return int(self._one(f"SELECT COUNT(*) FROM {side} WHERE key IS NULL"))

    def alone(self, side: str) -> int:
        """Keys of one side that the other does not have at all."""
        other = f"SELECT 1 FROM {'b' if side == 'a' else 'a'} o WHERE o.key = s.key"
        return int(self._one(f"SELECT COUNT(*) FROM only_{side} s WHERE NOT EXISTS ({other})"))

    def counts(self, **conditions: str) -> dict[str, int]:
        """How many matched pairs each condition holds of."""
        sums = ", ".join(f"COALESCE(SUM({condition}), 0)" for condition in conditions.values())
        found = self._do(f"SELECT {sums} {_MATCHED}")[0]
        return dict(zip(conditions, map(int, found), strict=True))

    def means(self) -> tuple[float | None, float | None]:
        """The mean scores of both sides, over pairs that have both."""
        return self._do(f"SELECT AVG(a.score), AVG(b.score) {_MATCHED} WHERE {SCORED}")[0]

    def lines(self, condition: str, most: int) -> list[tuple[int, int]]:
        """Lines on both sides of those that the condition holds of, in the order of b."""
        sql = f"SELECT a.line, b.line {_MATCHED} WHERE {condition} ORDER BY b.line LIMIT ?"
        return [(first, second) for first, second in self._do(sql, most)]

    def is_binary(self) -> bool:
        """All scores are 0 or 1."""
        sql = "SELECT EXISTS (SELECT 1 FROM {} WHERE score NOT IN (0, 1))"
        return not any(self._one(sql.format(side)) for side in "ab")
