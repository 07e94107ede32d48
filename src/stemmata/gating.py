"""Gating: what must hold of a version before an alias may point at it. Owns how a requirement is judged.

A requirement is an expression of `catalog.grammar`, judged on one version at the catalog's present. Unlike a
filter's, a comparison with what is missing, or NaN, is neither true nor false: it fails the gate unless the
expression holds whatever it was ("or", "is none"). Numbers are reckoned with as they are written in
decimals, so that 0.9 is not less than 0.91 - 0.01. Changes nothing.
"""

from __future__ import annotations

import math
import operator
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias, cast

from stemmata.capture import mask
from stemmata.catalog import queries
from stemmata.catalog.conditions import Name, Scope, Value, value_of
from stemmata.catalog.expression import clause_of
from stemmata.catalog.facts import NAN
from stemmata.catalog.filling import need
from stemmata.catalog.grammar import (
    Chain,
    Comparison,
    Leaf,
    Member,
    Node,
    Not,
    Operand,
    Other,
    Sum,
    parse_gate,
)
from stemmata.catalog.queries import VersionRow
from stemmata.errors import InvalidArgument, InvalidExpression, NotFound, UsageProblem
from stemmata.ids import VersionId
from stemmata.measurements import Dataset, contradiction, dataset_of_save, measured
from stemmata.names import name_key
from stemmata.records import decode_record, load_metrics, store_value
from stemmata.resolve import resolve

MOST = 100
"""Requirements of one gate."""
_MANY_VALUED = frozenset({"name", "alias", "tag"})
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_Reckoned: TypeAlias = Fraction | float
"""Exact where it is finite."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One expression that must hold. `policy`: the alias itself asks for it."""

    text: str
    policy: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """One name of a comparison, and its value on the version that it speaks of."""

    written: str
    version: VersionId | None
    value: float | str | None
    """None: it has none."""
    dataset: Dataset | None = None
    """What it was measured on, as far as is known; None: it is no metric."""
    key: str = ""
    """The name alone, without the version that it is of."""

    def to_dict(self) -> dict[str, object]:
        value = store_value(self.value)
        return {
            "name": self.written,
            "version": self.version.hex if self.version else None,
            "value": value,
            "dataset": self.dataset.to_dict() if self.dataset else None,
        }


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison. `holds` None: it cannot be told, and `reason` says why."""

    written: str
    holds: bool | None
    found: float | str | None
    """The left side."""
    wanted: str
    """What it has to be, as in `< 0.5`."""
    terms: tuple[Term, ...]
    reason: str = ""

    def to_dict(self) -> dict[str, object]:
        found = store_value(self.found)
        return {
            "comparison": self.written,
            "holds": self.holds,
            "found": found,
            "wanted": self.wanted,
            "terms": [t.to_dict() for t in self.terms],
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement, judged."""

    requirement: Requirement
    passed: bool
    comparisons: tuple[Compared, ...]
    reason: str = ""
    """Why it failed."""
    told: bool = True
    """False: it failed because it cannot be told whether it holds."""

    def to_dict(self) -> dict[str, object]:
        return {
            "expression": self.requirement.text,
            "policy": self.requirement.policy,
            "passed": self.passed,
            "comparisons": [c.to_dict() for c in self.comparisons],
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate, judged on one version: what an alias's event keeps as evidence."""

    version: VersionId
    checks: tuple[Check, ...]
    compared_with: Mapping[str, VersionId]
    """By selector, the other versions whose values were looked at."""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    def to_dict(self) -> dict[str, object]:
        """JSON: what the log and `--json` hold."""
        return {
            "version": self.version.hex,
            "passed": self.passed,
            "compared_with": {name: v.hex for name, v in self.compared_with.items()},
            "requirements": [check.to_dict() for check in self.checks],
        }


def requirements_of(texts: Sequence[str], *, policy: bool = False) -> list[Requirement]:
    """Expressions as requirements, each once. Raises InvalidExpression, InvalidArgument."""
    if isinstance(texts, str):
        texts = [texts]
    if len(texts) > MOST:
        raise InvalidArgument(argument="require", reason=f"a gate has at most {MOST} requirements")
    for text in texts:
        if not isinstance(cast("object", text), str):
            reason = f"{type(text).__name__} is no expression"
            raise InvalidArgument(argument="require", reason=reason)
        parse_gate(text)
        if mask(text) != text:
            # It is kept in the log, for good (I10).
            raise InvalidArgument(argument="require", reason="it looks as if it held a secret")
    return [Requirement(text, policy) for text in dict.fromkeys(texts)]


def judge(connection: sqlite3.Connection, row: VersionRow, requirements: Sequence[Requirement]) -> Verdict:
    """Judge a version as the catalog has it now, against others as it has them now."""
    judging = _Judge(connection, row)
    return Verdict(row.id, tuple(judging.check(r) for r in requirements), judging.others_looked_at)


@dataclass(frozen=True, slots=True)
class _Answer:
    """True, False, or None with the reasons why it cannot be told."""

    holds: bool | None
    reasons: tuple[str, ...] = ()


class _Judge:
    def __init__(self, connection: sqlite3.Connection, row: VersionRow) -> None:
        self.connection = connection
        self.row = row
        self.scope = Scope(row.model)
        self.others_looked_at: dict[str, VersionId] = {}
        self._others: dict[str, VersionRow | str] = {}

    def check(self, requirement: Requirement) -> Check:
        try:
            parsed = parse_gate(requirement.text)
        except InvalidExpression as error:
            # One that a newer release wrote: what cannot be read is not met.
            return Check(requirement, False, (), str(error), told=False)
        compared: list[Compared] = []
        answer = self.answer(parsed.node, compared)
        reason = ""
        if not answer.holds:
            untrue = [f"{c.written}: {_unmet(c)}" for c in compared if c.holds is False]
            reason = "; ".join(dict.fromkeys(answer.reasons or untrue or [requirement.text]))
        return Check(requirement, bool(answer.holds), tuple(compared), reason, answer.holds is not None)

    def answer(self, node: Node, compared: list[Compared]) -> _Answer:
        """Kleene's logic: what cannot be told stays so unless the rest decides."""
        if isinstance(node, Not):
            inner = self.answer(node.part, compared)
            return inner if inner.holds is None else _Answer(not inner.holds)
        if not isinstance(node, Chain):
            found = self.compare(node)
            compared.append(found)
            return _Answer(found.holds, (found.reason,) if found.reason else ())
        parts = [self.answer(part, compared) for part in node.parts]
        decisive = node.word == "or"
        if any(part.holds is decisive for part in parts):
            return _Answer(decisive)
        unknown = tuple(r for part in parts if part.holds is None for r in part.reasons)
        return _Answer(None, unknown) if any(p.holds is None for p in parts) else _Answer(not decisive)

    # --- one comparison -------------------------------------------------------------------------

    def compare(self, leaf: Leaf) -> Compared:
        if not isinstance(leaf, Comparison):
            wanted = leaf.written[len(_written(leaf.name)) :].strip()
            return self.asked(leaf, leaf.name, wanted, needs_value=isinstance(leaf, Member))
        if isinstance(leaf.right, Value):
            wanted = f"{leaf.op} {leaf.right.written}"
            if isinstance(leaf.left, Name):
                return self.asked(leaf, leaf.left, wanted, needs_value=leaf.right.value is not None)
            if isinstance(leaf.left, Other) and isinstance(leaf.right.value, str | bool):
                return self.asked(leaf, leaf.left, wanted, needs_value=True)
        return self.reckoned(leaf)

    def asked(self, leaf: Leaf, of: Name | Other, wanted: str, *, needs_value: bool) -> Compared:
        """A name and what is written there: as a filter decides it, but for values that are not there."""
        _, (term,) = self.terms(of)
        name = of if isinstance(of, Name) else of.name
        row = self.row if isinstance(of, Name) else self.other(of.selector)
        if isinstance(row, str):
            return Compared(leaf.written, None, None, wanted, (term,), row)
        many = name.is_field and name.key in _MANY_VALUED
        reason = self.lack(term) if needs_value and not many else None
        if reason is not None:
            return Compared(leaf.written, None, term.value, wanted, (term,), reason)
        if isinstance(leaf, Comparison):
            leaf = replace(leaf, left=name)
        clause = clause_of(leaf, self.scope)
        # The clause holds marks for values alone: see `conditions`.
        sql = f"SELECT {clause.sql} FROM versions v WHERE v.seq = ?"  # noqa: S608
        holds = bool(self.connection.execute(sql, (*clause.parameters, row.seq)).fetchone()[0])
        return Compared(leaf.written, holds, term.value, wanted, (term,))

    def reckoned(self, leaf: Comparison) -> Compared:
        left, right = self.terms(leaf.left), self.terms(leaf.right)
        terms = tuple(t for _, products in (left, right) for t in products)
        rough = f"{leaf.op} {_text_of(leaf.right)}"

        def unknown(reason: str) -> Compared:
            found = left[1][0].value if len(left[1]) == 1 and isinstance(leaf.left, Name | Other) else None
            return Compared(leaf.written, None, found, rough, terms, reason)

        problems = [*left[0], *right[0], *(self.lack(term) for term in terms)]
        for problem in problems:
            if problem is not None:
                return unknown(problem)
        differing = _differing(terms)
        if differing is not None:
            return unknown(f"{leaf.written}: {differing}")
        if all(isinstance(s, Name | Other) for s in (leaf.left, leaf.right)):
            a, b = terms[0].value, terms[-1].value
            if isinstance(a, str) and isinstance(b, str):
                return Compared(leaf.written, _ORDERS[leaf.op](a, b), a, f"{leaf.op} {b}", terms)
        for term in terms:
            if not isinstance(term.value, float):
                return unknown(f"{term.written} is no number: {term.value!r}")
        values = iter(cast("list[float]", [t.value for t in terms]))
        a_side, b_side = _reckon(leaf.left, values), _reckon(leaf.right, values)
        if any(isinstance(side, float) and math.isnan(side) for side in (a_side, b_side)):
            return unknown(f"{leaf.written}: infinities leave nothing to compare")
        holds = _ORDERS[leaf.op](a_side, b_side)
        a, b = _rounded(a_side), _rounded(b_side)
        return Compared(leaf.written, holds, a, f"{leaf.op} {apart(a, b)[1]}", terms)

    def terms(self, operand: object) -> tuple[list[str], list[Term]]:
        """The values of the names of one side, and what keeps them from being looked up."""
        factors = (
            [f for _, product in operand.products for f in product] if isinstance(operand, Sum) else [operand]
        )
        problems: list[str] = []
        found: list[Term] = []
        for factor in factors:
            if isinstance(factor, Name):
                found.append(self.own(factor))
            elif isinstance(factor, Other):
                other = self.other(factor.selector)
                if isinstance(other, str):
                    problems.append(other)
                    found.append(Term(factor.written, None, None))
                else:
                    found.append(replace(self.value(other, factor.name), written=factor.written))
        return problems, found

    # --- values ---------------------------------------------------------------------------------

    def own(self, name: Name) -> Term:
        return self.value(self.row, name)

    def other(self, selector: str) -> VersionRow | str:
        """The version of this model that a selector names now, or why there is none."""
        if selector not in self._others:
            self._others[selector] = self._look_up(selector)
            found = self._others[selector]
            if isinstance(found, VersionRow):
                self.others_looked_at[selector] = found.id
        return self._others[selector]

    def _look_up(self, selector: str) -> VersionRow | str:
        model = queries.model_name(self.connection, self.row.model)
        try:
            return resolve(self.connection, f"{model}@{selector}").row
        except (NotFound, UsageProblem) as error:
            moves = queries.ref_moves(self.connection, self.row.model, name_key(selector))
            near = str(error.data.get("hint", ""))
            said = f" ({near})" if near.startswith("did you mean") else ""
            if not moves and isinstance(error, NotFound):
                return (
                    f"{selector} names nothing yet{said}; promote without that requirement first, "
                    "and there is something to compare with"
                )
            return str(error)

    def value(self, row: VersionRow, name: Name) -> Term:
        need(self.connection, [name], row.model)
        number, words = value_of(name, Scope(row.model))
        # As above: no name or value is part of the text.
        sql = f"SELECT {number.sql}, {words.sql} FROM versions v WHERE v.seq = ?"  # noqa: S608
        parameters = (*number.parameters, *words.parameters, row.seq)
        num, text = self.connection.execute(sql, parameters).fetchone()
        value: float | str | None = float(num) if num is not None else text
        if text == NAN:
            value = math.nan
        if text in ("true", "false"):
            value = text
        metric = name.space in (None, "metric") and not name.is_field
        dataset = dataset_of(self.connection, row, name.key) if metric else None
        if name.is_field and name.key in _MANY_VALUED:
            names = [r.name for r in queries.names_of(self.connection, row.id) if r.kind == name.key]
            value = ", ".join(names) or None
        return Term(_written(name), row.id, value, dataset, name.key)

    def lack(self, term: Term) -> str | None:
        of = "" if term.version in (None, self.row.id) and not term.written.startswith("@") else " there"
        if term.value is None:
            hint = ""
            if any(sign in term.written[1:] for sign in "+-") and "`" not in term.written:
                hint = " (blanks stand around + and -)"
            return f"{term.written} is missing{of}{hint}"
        if isinstance(term.value, float) and math.isnan(term.value):
            return f"{term.written} is NaN{of}"
        return None


def _differing(terms: Sequence[Term]) -> str | None:
    """Why values of several versions cannot be held against each other, if they cannot. A sum over benchmarks
    has the same metrics of each version: one metric is held against the same one."""
    of_versions: dict[VersionId | None, set[str]] = {}
    for term in terms:
        if term.dataset is not None:
            of_versions.setdefault(term.version, set()).add(term.key)
    if len(of_versions) < 2:
        return None
    first, *rest = of_versions.values()
    groups: list[Sequence[Term]] = [terms]
    if all(keys == first for keys in rest):
        groups = [[t for t in terms if t.key == key] for key in sorted(first)]
    found = (contradiction(t.dataset for t in some if t.dataset is not None) for some in groups)
    return next((each for each in found if each is not None), None)


def dataset_of(connection: sqlite3.Connection, row: VersionRow, metric: str) -> Dataset | None:
    """What the value of a metric that stands was measured on; None if the version has no such metric."""
    for annotation in reversed(queries.annotations_of(connection, row.seq)):
        if metric in annotation.metrics:
            return measured(annotation.details)[0]
    record = decode_record(row.record, row.id)
    return dataset_of_save(metric, record.data) if metric in load_metrics(record.metrics) else None


def _written(name: Name) -> str:
    """A name as people write it."""
    key = f"`{name.key}`" if name.quoted else name.key
    return f"{name.space}.{key}" if name.space is not None else key


def _text_of(operand: Operand) -> str:
    if isinstance(operand, Sum):
        parts = []
        for place, (sign, product) in enumerate(operand.products):
            lead = "" if place == 0 else " + " if sign > 0 else " - "
            parts.append(lead + " * ".join(_text_of(f) for f in product))
        return "".join(parts)
    return _written(operand) if isinstance(operand, Name) else operand.written


def _unmet(compared: Compared) -> str:
    """What a comparison found, and what it would have to be where that is reckoned out."""
    wanted = "" if compared.written.endswith(compared.wanted) else f", wanted {compared.wanted}"
    return f"it is {shown(compared.found, compared.wanted)}{wanted}"


def shown(value: float | str | None, wanted: str) -> str:
    """A value beside what was wanted of it: a number in six digits, or as many as tell it apart."""
    if not isinstance(value, float):
        return "none" if value is None else value
    try:
        return apart(value, float(wanted.split()[-1]))[0]
    except (ValueError, IndexError):
        return f"{value:.6g}"


def apart(a: float, b: float) -> tuple[str, str]:
    """Two numbers in six digits each, or in as many as it takes that they do not look alike."""
    for digits in range(6, 18):
        found = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if found[0] != found[1] or a == b:
            break
    return found


def _reckon(operand: Operand, values: Iterator[float]) -> _Reckoned:
    """The number of one side; `values` are those of its names, in order."""
    if isinstance(operand, Value):
        return _exact(operand.value)
    if not isinstance(operand, Sum):
        return _exact(next(values))
    total: _Reckoned = Fraction(0)
    for sign, product in operand.products:
        found: _Reckoned = Fraction(sign)
        for factor in product:
            found = _both(operator.mul, found, _reckon(factor, values))
        total = _both(operator.add, total, found)
    return total


def _exact(value: object) -> _Reckoned:
    """A number as it is written in decimals; an infinity as itself."""
    number = float(cast("float", value))
    return Fraction(Decimal(repr(number))) if math.isfinite(number) else number


def _both(reckon: Callable[[Any, Any], Any], a: _Reckoned, b: _Reckoned) -> _Reckoned:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return cast("Fraction", reckon(a, b))
    return cast("float", reckon(_rounded(a), _rounded(b)))


def _rounded(value: _Reckoned) -> float:
    """As a float; an infinity where it is too great for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
