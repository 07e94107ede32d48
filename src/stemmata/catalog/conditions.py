"""Conditions: what a name of a filter means in SQL. Owns the places of values; knows no grammar.

Conditions speak of the row `v` of `versions`, are never NULL, and hold names and values as parameters alone.
"""

# ruff: noqa: S608 - statements are put together from fixed parts; every value is a parameter

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stemmata.catalog.facts import NAN
from stemmata.names import name_key

Parameter = str | int | float

SPACES = ("metric", "label", "config", "data")
"""Where a name is looked for, the first that has it wins."""
MEASURED_ON = "measured_on"
"""By metric, the name of what its value was measured on; looked for only where it is asked for."""
SHARED = frozenset({"config", "data"})
"""Spaces of facts that many versions have in common: see `schema`."""
_NEWEST = 2**63 - 1
_NAN = f"x'{NAN.hex()}'"
_NUMBERS = {"step": "v.step", "epoch": "v.epoch", "size": "v.bytes", "files": "v.files"}
_TEXTS = {
    "run": "folded(v.run)",
    "event": "v.event",
    "kind": "v.kind",
    "created_at": "v.created_at",
    "message": "NULLIF(v.message, '')",
    "author": "NULLIF(v.author, '')",
    "model": "v.model",
    "id": "lower(hex(v.id))",
}
_REFS = ("name", "alias", "tag")
_NAMES = frozenset({*_REFS, "run", "model"})
"""Compared by their keys, as names are everywhere; `folded` is `name_key` in SQL: see `connection`."""
_SPELLED = {"run": "v.run", "model": "(SELECT name FROM models WHERE key = v.model)"}
DESCENDS_FROM, TRAINED_ON, FROM_BASE = "descends_from", "trained_on", "from_base"
LINEAGE = frozenset({DESCENDS_FROM, TRAINED_ON, FROM_BASE})
"""Where a version comes from: see `ancestry`."""
FIELDS = frozenset({*_NUMBERS, *_TEXTS, *_REFS, *LINEAGE})
"""Names that mean the version itself before any metric or config key."""


class Clause(msgspec.Struct, frozen=True):
    """SQL with its parameters, in order."""

    sql: str
    parameters: tuple[Parameter, ...] = ()
    depth: int = 0

    def negated(self) -> Clause:
        return Clause(f"NOT {self.sql}", self.parameters, self.depth)


class Name(msgspec.Struct, frozen=True):
    """A name of a filter; `space` None: wherever it is found first."""

    key: str
    space: str | None  # None: any
    quoted: bool = False

    @property
    def is_field(self) -> bool:
        return self.space is None and not self.quoted and self.key in FIELDS

    @property
    def is_lineage(self) -> bool:
        return self.is_field and self.key in LINEAGE


class Value(msgspec.Struct, frozen=True):
    """A literal, and its text as written."""

    value: str | int | float | bool | None
    written: str


class Scope(msgspec.Struct, frozen=True):
    """What a filter is asked of: one model (by key) or all, now or as of `at`."""

    model: str | None = None
    at: str | None = None


def _spaces(name: Name) -> list[str]:
    return [name.space] if name.space else list(SPACES)


def _key(space: str, key: str, scope: Scope) -> Clause:
    """The numbers of a key: of all models, of the one that is asked about, or of `v`'s."""
    if space in SHARED:
        return Clause("SELECT id FROM keys WHERE space = ? AND key = ? AND model = ''", (space, key))
    if scope.model is None:
        return Clause("SELECT id FROM keys WHERE space = ? AND key = ?", (space, key))
    return Clause("SELECT id FROM keys WHERE space = ? AND key = ? AND model = ?", (space, key, scope.model))


def _holders(space: str, name: Name, condition: Clause | None, scope: Scope) -> Clause:
    """Versions with a fact of that space that meets the condition; never NULL.

    The subquery depends on no row: SQLite makes the set once.
    """
    key = _key(space, name.key, scope)
    if space not in SHARED and scope.at is not None:
        facts = facts_then("f.version", key, condition, scope.at)
        return Clause(f"v.seq IN ({facts.sql})", facts.parameters)
    column, table, holder = "v.seq", "facts", "version"
    if space in SHARED:
        column, table, holder = f"v.{space}", "shared_facts", "shared"
    sql = f"{column} IN (SELECT f.{holder} FROM {table} f WHERE f.key IN ({key.sql})"
    if condition is None:
        return Clause(f"{sql})", key.parameters)
    return Clause(f"{sql} AND {condition.sql})", (*key.parameters, *condition.parameters))


def facts_then(columns: str, key: Clause, condition: Clause | None, at: str) -> Clause:
    """`SELECT columns` of the facts `f` of these keys, as they stood then, that meet the condition.

    As flat as can be: it may stand as deep in a filter as SQLite's parser goes.
    """
    meets = condition or Clause("1")
    start = f"JOIN versions w ON w.seq = f.version WHERE f.key IN ({key.sql}) AND COALESCE(f.at, w.at) <= ?"
    later = "key = f.key AND {0}.version = f.version AND COALESCE({0}.at, w.at) <= ?"
    sql = (
        f"SELECT {columns} FROM facts f {start} AND {meets.sql}"
        f" UNION ALL SELECT {columns} FROM fact_moves f {start} AND f.removed = 0"
        f" AND NOT EXISTS (SELECT 1 FROM fact_moves l WHERE l.{later.format('l')} AND l.id > f.id)"
        f" AND NOT EXISTS (SELECT 1 FROM facts c WHERE c.{later.format('c')}) AND {meets.sql}"
    )
    standing = (*key.parameters, at, *meets.parameters)
    return Clause(sql, (*standing, *key.parameters, at, at, at, *meets.parameters))


def _on_facts(name: Name, condition: Clause, scope: Scope) -> Clause:
    """The condition on the first of the spaces that have the name."""
    parts: list[str] = []
    parameters: list[Parameter] = []
    above: list[Clause] = []
    for space in _spaces(name):
        found = _holders(space, name, condition, scope)
        # Most names are of one space: the empty sets of the others are looked at first.
        parts.append(" AND ".join([found.sql, *(f"NOT {has.sql}" for has in above)]))
        parameters += found.parameters
        for has in above:
            parameters += has.parameters
        above.append(_holders(space, name, None, scope))
    return Clause(f"({' OR '.join(parts)})", tuple(parameters))


def _facts(name: Name, scope: Scope) -> Clause:
    """`FROM …` that yields at most one row `f` with num and text: the fact of `v` that `name` means."""
    parts: list[str] = []
    parameters: list[Parameter] = []
    for space in _spaces(name):
        if space in SHARED:
            rank = _rank(space)
            parts.append(
                f"SELECT {rank} AS rank, s.num, s.text FROM keys k JOIN shared_facts s ON s.key = k.id"
                f" AND s.shared = v.{space} WHERE k.space = ? AND k.key = ? AND k.model = ''"
            )
            parameters += [space, name.key]
        else:
            own = _own_fact(space, name, scope.at)
            parts.append(own.sql)
            parameters += own.parameters
    return Clause(f"FROM ({' UNION ALL '.join(parts)}) f ORDER BY f.rank LIMIT 1", tuple(parameters))


def _rank(space: str) -> int:
    return SPACES.index(space) if space in SPACES else len(SPACES)


def _own_fact(space: str, name: Name, at: str | None) -> Clause:
    """A metric or label of `v`: the value that stands, or the last one that was set by `at`."""
    key = "k.space = ? AND k.key = ? AND k.model = v.model"
    rank = _rank(space)
    if at is None:
        return Clause(
            f"SELECT {rank} AS rank, s.num, s.text FROM keys k JOIN facts s ON s.key = k.id"
            f" AND s.version = v.seq WHERE {key}",
            (space, name.key),
        )
    then = "COALESCE(s.at, v.at) <= ?"
    return Clause(
        f"SELECT {rank} AS rank, num, text FROM (SELECT {_NEWEST} AS id, s.num, s.text, 0 AS removed"
        f" FROM keys k JOIN facts s ON s.key = k.id AND s.version = v.seq WHERE {key} AND {then}"
        f" UNION ALL SELECT s.id, s.num, s.text, s.removed FROM keys k"
        f" JOIN fact_moves s ON s.key = k.id AND s.version = v.seq WHERE {key} AND {then}"
        " ORDER BY id DESC LIMIT 1) WHERE removed = 0",
        (space, name.key, at, space, name.key, at),
    )


def _ref_names(kind: str, at: str | None) -> Clause:
    """`FROM … WHERE …` over the names of that kind, by their keys `r.key`; `r.target` is the version's id."""
    if at is None:
        return Clause("FROM refs r WHERE r.kind = ?", (kind,))
    return Clause(
        # A version's own name never moves.
        "FROM (SELECT id AS target, 'name' AS kind, key FROM versions WHERE at <= ?"
        " UNION ALL SELECT m.target, m.kind, m.key FROM moves m WHERE m.target IS NOT NULL AND m.at <= ?"
        " AND NOT EXISTS (SELECT 1 FROM moves l WHERE l.model = m.model AND l.key = m.key AND l.at <= ?"
        " AND (l.n > m.n OR l.n = m.n AND l.id > m.id))) r WHERE r.kind = ?",
        (at, at, at, kind),
    )


def _comparison(number: str, words: str, op: str, value: Value) -> Clause:
    """`op` between the two readings of a fact and a literal; NULL counts as false."""
    literal = value.value
    # A literal number also equals a text that spells it so: labels are always text.
    spelled = f"({number} IS NULL AND {words} = ?)"
    if op == "~":
        return Clause(contains(words), (value.written,))
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


def contains(words: str) -> str:
    """SQL of whether a text has the parameter in it, in whatever case either is written; NULL for no text."""
    return f"instr(folded({words}), folded(?)) > 0"


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
        return "f.num", but_nan("f.text")
    if name.key in _REFS:
        return "NULL", "r.key"
    return _NUMBERS.get(name.key, "NULL"), _TEXTS.get(name.key, "NULL")


def but_nan(words: str) -> str:
    """SQL of a fact's text; NULL for NaN."""
    return f"NULLIF({words}, {_NAN})"


def _on(name: Name, condition: Clause, scope: Scope) -> Clause:
    """The condition on the row that holds the name's value; false where there is none."""
    if not name.is_field:
        return _on_facts(name, condition, scope)
    if name.key in _REFS:
        source = _ref_names(name.key, scope.at)
        sql = f"(v.id IN (SELECT r.target {source.sql} AND {condition.sql}))"
        return Clause(sql, (*source.parameters, *condition.parameters))
    return Clause(f"COALESCE({condition.sql}, 0)", condition.parameters)


def compares(name: Name, op: str, value: Value, scope: Scope) -> Clause:
    """`name op value`; op: == != < <= > >= and ~ for "contains"."""
    if _is_run(name) and op in ("==", "!="):
        return _of_runs([value], scope, negated=op == "!=")
    if op == "!=" and name.is_field and name.key in _REFS:
        return compares(name, "==", value, scope).negated()
    number, words = _columns(name)
    value = _meant(name, value)
    if _is_id(name) and op in ("==", "!="):
        # Ids are written by their first digits everywhere else too.
        words = f"substr({words}, 1, {max(4, len(value.written))})"
    return _on(name, _comparison(number, words, op, value), scope)


def _is_run(name: Name) -> bool:
    return name.is_field and name.key == "run"


def _of_runs(values: Sequence[Value], scope: Scope, *, negated: bool) -> Clause:
    """The version is of a run of one of these names, or of a run of another name.

    A run's name is folded once, however many versions it has, and they are found by the index of runs.
    """
    of_model = Clause("") if scope.model is None else Clause("model = ? AND ", (scope.model,))
    # With the limit SQLite makes the set first, and does not fold the name of each version after all.
    runs = f"SELECT DISTINCT run FROM versions WHERE {of_model.sql}run IS NOT NULL LIMIT -1"
    named = f"SELECT run FROM ({runs}) WHERE folded(run) IN ({', '.join('?' * len(values))})"
    keys = [name_key(value.written) for value in values]
    # Without the plus SQLite walks all that are of a run.
    sql = f"(+v.run IS NOT NULL AND v.run {'NOT IN' if negated else 'IN'} ({named}))"
    return Clause(sql, (*of_model.parameters, *keys))


def _is_id(name: Name) -> bool:
    return name.is_field and name.key == "id"


def _meant(name: Name, value: Value) -> Value:
    """The literal as what it is compared with is kept: ids in lower case, names by their keys."""
    if _is_id(name):
        return Value(value.written.lower(), value.written.lower())
    if not name.is_field or name.key not in _NAMES:
        return value
    key = name_key(value.written)
    return Value(key if isinstance(value.value, str) else value.value, key)


def member_of(name: Name, values: Sequence[Value], *, negated: bool, scope: Scope) -> Clause:
    """`name in [values]`, or `not in`, which is as false for an absent value as `in`."""
    if _is_run(name):
        return _of_runs(values, scope, negated=negated)
    if _is_id(name):
        parts = [compares(name, "==", value, scope) for value in values]
        parameters = tuple(p for part in parts for p in part.parameters)
        either = Clause(f"({' OR '.join(part.sql for part in parts)})", parameters)
        return either.negated() if negated else either
    number, words = _columns(name)
    found = _membership(number, words, [_meant(name, value) for value in values])
    if negated and name.is_field and name.key in _REFS:
        return _on(name, found, scope).negated()
    if negated:
        found = Clause(f"({_present(number, words)} AND NOT COALESCE({found.sql}, 0))", found.parameters)
    return _on(name, found, scope)


def is_there(name: Name, scope: Scope) -> Clause:
    """The version has a value of that name, be it NaN."""
    number, words = _columns(name) if name.is_field else ("f.num", "f.text")
    return _on(name, Clause(_present(number, words)), scope)


def is_nan(name: Name, scope: Scope) -> Clause:
    condition = "0" if name.is_field else f"(f.num IS NULL AND f.text = {_NAN})"
    return _on(name, Clause(condition), scope)


def value_of(name: Name, scope: Scope) -> tuple[Clause, Clause]:
    """SQL of the number and of the text, as it is spelled, to order by."""
    if name.is_field:
        number, words = ("NULL", "v.name") if name.key in _REFS else _columns(name)
        return Clause(number), Clause(_SPELLED.get(name.key, words))
    source = _facts(name, scope)
    return (
        Clause(f"(SELECT f.num {source.sql})", source.parameters),
        Clause(f"(SELECT f.text {source.sql})", source.parameters),
    )


def _present(number: str, words: str) -> str:
    return f"({number} IS NOT NULL OR {words} IS NOT NULL)"
