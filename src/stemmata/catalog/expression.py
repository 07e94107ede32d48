"""Filter expressions: `eval_loss < 0.5 and lora.r == 8` as SQL over versions and facts.

Owns how conditions of `grammar` become SQL. Every name and value reaches it as a parameter, never as SQL.

What a version does not have, and NaN, make every comparison false, `!=` too; `is none` and `is nan`
find them. A version can have many names, aliases and tags: `name == "x"` holds if one of them is x,
`name != "x"` if none is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stemmata.catalog.conditions import (
    FIELDS,
    Clause,
    Name,
    Parameter,
    Scope,
    Value,
    compares,
    is_nan,
    is_there,
    member_of,
    value_of,
)

if TYPE_CHECKING:
    # Here for its types; read when there is an expression to read, which most commands have not.
    from stemmata.catalog.grammar import Leaf, Node

__all__ = ["FIELDS", "Filter", "Parameter", "Scope", "SortKey", "clause_of", "compile_filter", "compile_sort"]

NOW = Scope()


class Filter(msgspec.Struct, frozen=True):
    """A compiled expression: a condition on the row `v` of `versions`, and the names it speaks of."""

    sql: str
    parameters: tuple[Parameter, ...]
    names_used: tuple[str, ...]
    names: tuple[Name, ...]


class SortKey(msgspec.Struct, frozen=True):
    """What to order by: numbers before texts, versions without a value last."""

    number: Clause
    text: Clause
    name: Name


def compile_filter(text: str, scope: Scope = NOW) -> Filter:
    """Compile an expression; with a time, on metrics, labels and names as they stood then.

    Raises InvalidExpression with the position of what cannot be read.
    """
    from stemmata.catalog.grammar import parse_filter

    parsed = parse_filter(text)
    clause = _clause(parsed.node, scope, flip=False)
    return Filter(clause.sql, clause.parameters, parsed.names, parsed.used)


def compile_sort(text: str, scope: Scope = NOW) -> SortKey:
    """Compile a single name to order by. Raises InvalidExpression."""
    from stemmata.catalog.grammar import parse_name

    name = parse_name(text)
    number, words = value_of(name, scope)
    return SortKey(number, words, name)


def _clause(node: Node, scope: Scope, *, flip: bool) -> Clause:
    """A condition, or its opposite: "not" is carried down to the comparisons, for depth
    is dear (see below) and no comparison is ever NULL."""
    from stemmata.catalog.grammar import Chain, Not

    if isinstance(node, Not):
        return _clause(node.part, scope, flip=not flip)
    if not isinstance(node, Chain):
        found = clause_of(node, scope)
        return found.negated() if flip else found
    parts = [_clause(part, scope, flip=flip) for part in node.parts]
    # Deepest first, so that SQLite's parser, whose stack is small, closes it before the rest.
    parts.sort(key=lambda p: -p.depth)
    parameters = tuple(p for part in parts for p in part.parameters)
    joined = (" AND " if (node.word == "and") != flip else " OR ").join(p.sql for p in parts)
    return Clause(f"({joined})", parameters, node.depth)


def clause_of(leaf: Leaf, scope: Scope) -> Clause:
    """One comparison of a name with what is written there, as SQL that is never NULL."""
    from stemmata.catalog.grammar import Comparison, Member

    if (found := _lineage(leaf, scope)) is not None:
        return found
    if isinstance(leaf, Member):
        return member_of(leaf.name, leaf.values, negated=leaf.negated, scope=scope)
    if isinstance(leaf, Comparison):
        if not isinstance(leaf.left, Name) or not isinstance(leaf.right, Value):
            raise TypeError("only a name and a value are compared in SQL")
        if leaf.right.value is None:
            there = is_there(leaf.left, scope)
            return there if leaf.op == "!=" else there.negated()
        return compares(leaf.left, leaf.op, leaf.right, scope)
    found = is_there(leaf.name, scope) if leaf.what == "none" else is_nan(leaf.name, scope)
    return found if leaf.negated == (leaf.what == "none") else found.negated()


def _lineage(leaf: Leaf, scope: Scope) -> Clause | None:
    """A condition on where the version comes from; None for any other."""
    from stemmata.catalog.grammar import Comparison, Is, Member

    name = leaf.left if isinstance(leaf, Comparison) else leaf.name
    if isinstance(leaf, Is) or not isinstance(name, Name) or not name.is_lineage:
        return None
    from stemmata.catalog import ancestry

    if isinstance(leaf, Member):
        return ancestry.member(name.key, leaf.values, scope.at, negated=leaf.negated)
    assert isinstance(leaf.right, Value)
    return ancestry.condition(name.key, leaf.op, leaf.right, scope.at)
