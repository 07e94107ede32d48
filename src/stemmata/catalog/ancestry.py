"""Ancestry: conditions on where a version comes from: other versions, data, a base model.

Owns the walk along parents and bases. Versions that were deleted are walked through; whether they are
listed is not said here. As in `conditions`, a clause speaks of the row `v`, is never NULL, and has values as
parameters - but for digits of ids, which are checked.
"""

# ruff: noqa: S608 - statements are put together from fixed parts and hex digits

from __future__ import annotations

import re

from stemmata.catalog import conditions
from stemmata.catalog.conditions import DESCENDS_FROM, TRAINED_ON, Clause, Parameter, Value
from stemmata.names import RESERVED, name_key
from stemmata.records import store_value

CONFIG_OF_DATA = ("dataset", "dataset_name", "train_dataset", "train_file")
"""Settings that say what a training read."""
_NOT_TRAINED_ON = ("eval", "eval_*", "test", "test_*", "validation", "valid", "dev")
_MEANT = " AND ".join(f"key NOT GLOB '{part}.*'" for part in _NOT_TRAINED_ON)
KEYS_OF_DATA = (
    "SELECT id, space, key FROM keys WHERE model = '' AND"
    f" (space = 'data' AND {_MEANT} OR space = 'config' AND key IN ({', '.join(map(repr, CONFIG_OF_DATA))}))"
)
"""The keys of what a version was trained on: all of `data` but what it was evaluated on."""
_ID = re.compile(r"[0-9a-fA-F]{4,64}")


def names_a_version(text: str) -> bool:
    """Whether a text is the first digits of an id, or model@name; what is sought, as `latest`, is no name."""
    model, at, name = text.partition("@")
    if at:
        sought = "~" in name or name_key(name.rpartition("/")[2]) in RESERVED
        return bool(model and name) and not sought
    return _ID.fullmatch(text) is not None


def condition(field: str, op: str, value: Value, at: str | None = None) -> Clause:
    """`field op value`; op: == or !=, and ~ for data and bases. `at`: names are those of then."""
    if op == "!=":
        return condition(field, "==", value, at).negated()
    if field == DESCENDS_FROM:
        return _descends_from(value.written, at)
    if field == TRAINED_ON:
        return _trained_on(value.written, contains=op == "~")
    return _from_base(value.written, at, contains=op == "~")


def member(field: str, values: tuple[Value, ...], at: str | None = None, *, negated: bool) -> Clause:
    """`field in [values]`, or `not in`; `at` as for `condition`."""
    parts = [condition(field, "==", value, at) for value in values]
    parameters = tuple(p for part in parts for p in part.parameters)
    found = Clause(f"({' OR '.join(part.sql for part in parts)})", parameters)
    return found.negated() if negated else found


def _versions(text: str, at: str | None) -> Clause:
    """`SELECT …` of the ids that the text names, or named then."""
    if "@" in text:
        model, _, name = text.partition("@")
        named = (name_key(model), name_key(name))
        if at is None:
            return Clause("SELECT target FROM refs WHERE model = ? AND key = ?", named)
        sql = (
            "SELECT id FROM versions WHERE model = ? AND key = ? AND at <= ?"
            " UNION ALL SELECT target FROM (SELECT target FROM moves WHERE model = ? AND key = ? AND at <= ?"
            " ORDER BY n DESC, id DESC LIMIT 1) WHERE target IS NOT NULL"
        )
        return Clause(sql, (*named, at, *named, at))
    digits = text.lower()
    if len(digits) == 64:
        # It need not be here itself: what came from it may be.
        return Clause(f"SELECT x'{digits}'")
    low, high = digits.ljust(64, "0"), digits.ljust(64, "f")
    return Clause(f"SELECT id FROM versions WHERE id BETWEEN x'{low}' AND x'{high}'")


def _descends_from(text: str, at: str | None) -> Clause:
    """A child, or a child of one; a version that is loaded on another one is its child too.

    A term for each kind of link, so that each goes along its index: SQLite follows no link of a view.
    """
    first = _versions(text, at)
    links = (
        "SELECT c.id FROM {of} JOIN versions c ON c.parent = {of}.id",
        "SELECT c.id FROM {of} JOIN versions c ON c.base = {of}.id",
        "SELECT c.id FROM {of} JOIN more_parents p ON p.parent = {of}.id"
        " JOIN versions c ON c.seq = p.version",
    )
    terms = [link.format(of=of) for of in ("first", "down") for link in links]
    sql = (
        f"(v.id IN (WITH RECURSIVE first(id) AS ({first.sql}), down(id) AS ({' UNION '.join(terms)})"
        " SELECT id FROM down))"
    )
    return Clause(sql, first.parameters)


def _trained_on(text: str, *, contains: bool) -> Clause:
    fits = conditions.contains("f.text") if contains else "f.text = ?"
    keys = f"SELECT id FROM ({KEYS_OF_DATA}) WHERE space = "
    parts = [
        f"v.{space} IN (SELECT f.shared FROM shared_facts f WHERE f.key IN ({keys}'{space}') AND {fits})"
        for space in ("data", "config")
    ]
    value = text if contains else str(store_value(text))
    return Clause(f"({' OR '.join(parts)})", (value, value))


def _from_base(text: str, at: str | None, *, contains: bool) -> Clause:
    """By the name it was loaded by, whole or after the last slash, or by the version that it is."""
    parameters: tuple[Parameter, ...] = (text,)
    fits = conditions.contains("name")
    if not contains:
        fits = "name = ? OR substr(name, -length(?) - 1) = '/' || ?"
        parameters = (text, text, text)
    sql = f"v.base_name IS NOT NULL AND v.base_name IN (SELECT id FROM base_names WHERE {fits})"
    if not contains and names_a_version(text):
        version = _versions(text, at)
        sql += f" OR v.base IS NOT NULL AND v.base IN ({version.sql})"
        parameters += version.parameters
    return Clause(f"({sql})", parameters)
