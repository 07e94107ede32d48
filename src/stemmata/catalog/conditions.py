"""Conditions: what a name of a filter means in SQL. Owns the places of values; knows no grammar.

Conditions speak of the row `v` of `versions`, are never NULL, and hold names and values as parameters alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Parameter = str | int | float

_RANK = "CASE f.space WHEN 'metric' THEN 0 WHEN 'label' THEN 1 WHEN 'config' THEN 2 ELSE 3 END"
_NUMBERS = {"step": "v.step", "epoch": "v.epoch", "size": "v.bytes", "files": "v.files"}
_TEXTS = {
    "run": "v.run",
    "event": "v.event",
    "kind": "v.kind",
    "created_at": "v.created_at",
    "message": "NULLIF(v.message, '')",
    "author": "NULLIF(v.author, '')",
    "model": "(SELECT name FROM models WHERE key = v.model)",
    "id": "lower(hex(v.id))",
}
_REFS = ("name", "alias", "tag")
FIELDS = frozenset({*_NUMBERS, *_TEXTS, *_REFS})
"""Names that mean the version itself before any metric or config key."""


@dataclass(frozen=True, slots=True)
class Clause:
    """SQL with its parameters, in order."""

    sql: str
    parameters: tuple[Parameter, ...] = ()
    depth: int = 0

    def negated(self) -> Clause:
        return Clause(f"NOT {self.sql}", self.parameters, self.depth)


@dataclass(frozen=True, slots=True)
class Name:
    """A name of a filter; `space` None: wherever it is found first."""

    key: str
    space: str | None  # None: any
    quoted: bool = False

    @property
    def is_field(self) -> bool:
        return self.space is None and not self.quoted and self.key in FIELDS


@dataclass(frozen=True, slots=True)
class Value:
    """A literal, and its text as written."""

    value: str | int | float | bool | None
    written: str


def _facts(name: Name, at: str | None) -> Clause:
    """`FROM …` that yields at most one row `f` with num and text: the fact that `name` means."""
    spaces = [name.space] if name.space else ["metric", "label", "config", "data"]
    if at is None:
        marks = ", ".join("?" * len(spaces))
        sql = f"FROM facts f WHERE f.version = v.seq AND f.key = ? AND f.space IN ({marks})"
        return Clause(f"{sql} ORDER BY {_RANK} LIMIT 1", (name.key, *spaces))
    parts: list[str] = []
    parameters: list[Parameter] = []
    for space in spaces:
        if space in ("metric", "label"):
            parts.append(
                "SELECT * FROM (SELECT space, num, text, removed FROM fact_moves WHERE space = ? AND key = ?"
                " AND version = v.seq AND at <= ? ORDER BY n DESC, rowid DESC LIMIT 1) WHERE removed = 0"
            )
            parameters += [space, name.key, at]
        else:
            parts.append(
                "SELECT space, num, text, 0 FROM facts WHERE version = v.seq AND space = ? AND key = ?"
            )
            parameters += [space, name.key]
    return Clause(f"FROM ({' UNION ALL '.join(parts)}) f ORDER BY {_RANK} LIMIT 1", tuple(parameters))


def _ref_names(kind: str, at: str | None) -> Clause:
    """`FROM … WHERE …` over the names `r.name` of that kind; `r.target` is the version's id."""
    if at is None:
        return Clause("FROM refs r WHERE r.kind = ?", (kind,))
    return Clause(
        "FROM ref_moves r WHERE r.kind = ? AND r.target IS NOT NULL AND r.at <= ? AND NOT EXISTS ("
        "SELECT 1 FROM ref_moves l WHERE l.model = r.model AND l.key = r.key AND l.at <= ?"
        " AND (l.n > r.n OR l.n = r.n AND l.rowid > r.rowid))",
        (kind, at, at),
    )


def _comparison(number: str, words: str, op: str, value: Value) -> Clause:
    """`op` between the two readings of a fact and a literal; NULL counts as false."""
    literal = value.value
    # A literal number also equals a text that spells it so: labels are always text.
    spelled = f"({number} IS NULL AND {words} = ?)"
    if op == "~":
        return Clause(f"instr(lower({words}), lower(?)) > 0", (value.written,))
    if op == "!=":
        same = _comparison(number, words, "==", value)
        return Clause(f"({_present(number, words)} AND NOT COALESCE({same.sql}, 0))", same.parameters)
    if isinstance(literal, bool):
        return Clause(f"{words} = ?", ("true" if literal else "false",))
    if isinstance(literal, int | float):
        if op == "==":
            return Clause(f"({number} = ? OR {spelled})", (literal, value.written))
        return Clause(f"{number} {op} ?", (literal,))
    sql_op = "=" if op == "==" else op
    return Clause(f"({number} IS NULL AND {words} {sql_op} ?)", (str(literal),))


def _membership(number: str, words: str, values: Sequence[Value]) -> Clause:
    numbers = [v.value for v in values if isinstance(v.value, int | float) and not isinstance(v.value, bool)]
    texts = [v.written for v in values]
    marks = ", ".join("?" * len(texts))
    sql = f"{words} IN ({marks})"
    if numbers:
        sql += f" OR {number} IN ({', '.join('?' * len(numbers))})"
    return Clause(f"({sql})", (*texts, *numbers))


def _columns(name: Name) -> tuple[str, str]:
    """SQL of the number and the text that the name stands for, within `_on`; both NULL for NaN."""
    if not name.is_field:
        return "f.num", "NULLIF(f.text, 'nan')"
    if name.key in _REFS:
        return "NULL", "r.name"
    return _NUMBERS.get(name.key, "NULL"), _TEXTS.get(name.key, "NULL")


def _on(name: Name, condition: Clause, at: str | None) -> Clause:
    """The condition on the row that holds the name's value; false where there is none."""
    if not name.is_field:
        source = _facts(name, at)
        sql = f"COALESCE((SELECT {condition.sql} {source.sql}), 0)"
        return Clause(sql, (*condition.parameters, *source.parameters))
    if name.key in _REFS:
        source = _ref_names(name.key, at)
        sql = f"(v.id IN (SELECT r.target {source.sql} AND {condition.sql}))"
        return Clause(sql, (*source.parameters, *condition.parameters))
    return Clause(f"COALESCE({condition.sql}, 0)", condition.parameters)


def compares(name: Name, op: str, value: Value, at: str | None) -> Clause:
    """`name op value`; op: == != < <= > >= and ~ for "contains"."""
    if op == "!=" and name.is_field and name.key in _REFS:
        return compares(name, "==", value, at).negated()
    number, words = _columns(name)
    if name.is_field and name.key == "id":
        value = Value(value.written.lower(), value.written.lower())
        if op in ("==", "!="):
            # Ids are written by their first digits everywhere else too.
            words = f"substr({words}, 1, {max(4, len(value.written))})"
    return _on(name, _comparison(number, words, op, value), at)


def member_of(name: Name, values: Sequence[Value], *, negated: bool, at: str | None) -> Clause:
    """`name in [values]`, or `not in`, which is as false for an absent value as `in`."""
    number, words = _columns(name)
    found = _membership(number, words, values)
    if negated and name.is_field and name.key in _REFS:
        return _on(name, found, at).negated()
    if negated:
        found = Clause(f"({_present(number, words)} AND NOT COALESCE({found.sql}, 0))", found.parameters)
    return _on(name, found, at)


def is_there(name: Name, at: str | None) -> Clause:
    """The version has a value of that name, be it NaN."""
    number, words = _columns(name) if name.is_field else ("f.num", "f.text")
    return _on(name, Clause(_present(number, words)), at)


def is_nan(name: Name, at: str | None) -> Clause:
    condition = "0" if name.is_field else "(f.num IS NULL AND f.text = 'nan')"
    return _on(name, Clause(condition), at)


def value_of(name: Name, at: str | None) -> tuple[Clause, Clause]:
    """SQL of the number and of the text to order by."""
    if name.is_field:
        number, words = ("NULL", "v.name") if name.key in _REFS else _columns(name)
        return Clause(number), Clause(words)
    source = _facts(name, at)
    return (
        Clause(f"(SELECT f.num {source.sql})", source.parameters),
        Clause(f"(SELECT f.text {source.sql})", source.parameters),
    )


def _present(number: str, words: str) -> str:
    return f"({number} IS NOT NULL OR {words} IS NOT NULL)"
