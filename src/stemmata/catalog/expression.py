"""Filter expressions: `eval_loss < 0.5 and lora.r == 8` as SQL over versions and facts.

Owns the language and its limits. Every name and value reaches SQLite as a parameter, never as SQL.

    or-chain   := and-chain { "or" and-chain }
    and-chain  := term { "and" term }
    term       := "not" term | "(" or-chain ")" | comparison
    comparison := operand op operand { op operand }       a name on one side of each op: 0.1 < loss <= 0.5
                | name ["not"] "in" "[" value { "," value } "]"
                | name "is" ["not"] ("none" | "nan")
    op         := "==" | "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"            ~: contains, a as A
    value      := number | "text" | 'text' | true | false | none

A name is a field (see FIELDS), else the metric, label, config or data key of that name, in this
order; `metrics.x`, `label.x`, `config.x` and `data.x` say which, and backquotes take any character.
What a version does not have, and NaN, make every comparison false, `!=` too; `is none` and `is nan`
find them. A version can have many names, aliases and tags: `name == "x"` holds if one of them is x,
`name != "x"` if none is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

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
from stemmata.errors import InvalidExpression

__all__ = ["FIELDS", "Filter", "Parameter", "Scope", "SortKey", "compile_filter", "compile_sort"]

NOW = Scope()
MAX_LENGTH = 2000
MAX_DEPTH = 50

_SPACES = {
    "metric": "metric",
    "metrics": "metric",
    "label": "label",
    "labels": "label",
    "config": "config",
    "data": "data",
}
_WORDS = frozenset({"and", "or", "not", "in", "is", "none", "null", "nan", "inf", "true", "false"})
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_TOKEN = re.compile(
    r"""(?P<blank>\s+)
      | (?P<number>[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
      | (?P<inf>[-+](?i:inf)\b)
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<quoted>(?:(?:metrics?|labels?|config|data)\.)?`[^`]+`)
      | (?P<name>[^\W\d][\w./@+-]*)
      | (?P<sign>==|!=|<>|<=|>=|[=<>~()\[\],])
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled expression: a condition on the row `v` of `versions`, and the names it speaks of."""

    sql: str
    parameters: tuple[Parameter, ...]
    names_used: tuple[str, ...]
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class SortKey:
    """What to order by: numbers before texts, versions without a value last."""

    number: Clause
    text: Clause
    name: Name


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, text, name, quoted, word, sign, end
    text: str
    position: int


def compile_filter(text: str, scope: Scope = NOW) -> Filter:
    """Compile an expression; with a time, on metrics, labels and names as they stood then.

    Raises InvalidExpression with the position of what cannot be read.
    """
    parser = _Parser(text, scope)
    clause = parser.whole()
    written = tuple(dict.fromkeys(text for text, _ in parser.names))
    return Filter(clause.sql, clause.parameters, written, tuple(name for _, name in parser.names))


def compile_sort(text: str, scope: Scope = NOW) -> SortKey:
    """Compile a single name to order by. Raises InvalidExpression."""
    name = _Parser(text, scope).single_name()
    number, words = value_of(name, scope)
    return SortKey(number, words, name)


@dataclass(slots=True)
class _Parser:
    text: str
    scope: Scope
    names: list[tuple[str, Name]] = field(default_factory=list)
    tokens: list[_Token] = field(default_factory=list)
    index: int = 0

    def __post_init__(self) -> None:
        if len(self.text) > MAX_LENGTH:
            raise self._error(MAX_LENGTH, f"it is longer than {MAX_LENGTH} characters")
        try:
            self.text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self._error(error.start, "it is not valid Unicode") from None
        self._tokenize()

    def _error(self, position: int, reason: str) -> InvalidExpression:
        shown = self.text if len(self.text) <= 200 else self.text[:200] + "…"
        # The message may be written anywhere, so it has to be valid text itself.
        shown = shown.encode("utf-8", "replace").decode("utf-8")
        return InvalidExpression(text=shown, position=position + 1, reason=reason)

    def _tokenize(self) -> None:
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                char = self.text[position]
                reason = "the text is never closed" if char in "\"'`" else f"{char!r} means nothing here"
                raise self._error(position, reason)
            kind, written = str(match.lastgroup), match.group()
            if kind == "number" and re.match(r"[\w.]", self.text[match.end() : match.end() + 1]):
                raise self._error(match.end(), "a number runs into a name")
            if kind == "name" and written.lower() in _WORDS:
                kind, written = "word", written.lower()
            if kind == "inf":
                kind, written = "word", written.lower()
            if kind != "blank":
                self.tokens.append(_Token(kind, written, position))
            position = match.end()
        self.tokens.append(_Token("end", "", position))

    # --- tokens ---------------------------------------------------------------------------------

    @property
    def here(self) -> _Token:
        return self.tokens[self.index]

    def take(self, *texts: str) -> str | None:
        """The next token's text if it is one of these signs or words, which is then consumed."""
        token = self.here
        if token.kind in ("sign", "word") and token.text in texts:
            self.index += 1
            return token.text
        return None

    def refuse(self, wanted: str) -> InvalidExpression:
        found = f"{self.here.text!r}" if self.here.kind != "end" else "the end"
        return self._error(self.here.position, f"{wanted} is expected, not {found}")

    # --- grammar --------------------------------------------------------------------------------

    def whole(self) -> Clause:
        clause = self.chain("or", 0, flip=False)
        if self.here.kind != "end":
            raise self.refuse("'and', 'or' or the end")
        return clause

    def single_name(self) -> Name:
        found = self.operand()
        if not isinstance(found, Name) or self.here.kind != "end":
            raise self._error(0, "a single name is expected")
        return found

    def chain(self, word: str, depth: int, *, flip: bool) -> Clause:
        """A chain of `word`, or its opposite: "not" is carried down to the comparisons, for depth
        is dear (see below) and no comparison is ever NULL."""
        parts: list[Clause] = []
        while not parts or self.take(word):
            part = self.chain("and", depth, flip=flip) if word == "or" else self.term(depth, flip=flip)
            parts.append(part)
        if len(parts) == 1:
            return parts[0]
        # Deepest first, so that SQLite's parser, whose stack is small, closes it before the rest.
        parts.sort(key=lambda p: -p.depth)
        deepest = parts[0].depth + 1
        self.bound(deepest)
        parameters = tuple(p for part in parts for p in part.parameters)
        joined = (" AND " if (word == "and") != flip else " OR ").join(p.sql for p in parts)
        return Clause(f"({joined})", parameters, deepest)

    def bound(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._error(self.here.position, f"it is nested more than {MAX_DEPTH} deep")

    def term(self, depth: int, *, flip: bool) -> Clause:
        self.bound(depth)
        if self.take("not"):
            return self.term(depth + 1, flip=not flip)
        if self.take("("):
            inner = self.chain("or", depth + 1, flip=flip)
            if not self.take(")"):
                raise self.refuse("')'")
            return inner
        found = self.comparison()
        return found.negated() if flip else found

    def comparison(self) -> Clause:
        start = self.here.position
        left = self.operand()
        if isinstance(left, Name):
            negated = self.take("not") is not None
            if self.take("in"):
                return self.list_of(left, negated=negated)
            if negated:
                raise self.refuse("'in'")
            if self.take("is"):
                return self.state_of(left)
        parts: list[Clause] = []
        while op := self.take("==", "=", "!=", "<>", "<", "<=", ">", ">=", "~"):
            op = {"=": "==", "<>": "!="}.get(op, op)
            position = self.here.position
            right = self.operand()
            parts.append(self.compare(left, op, right, position))
            left = right
        if not parts:
            raise (
                self.refuse("a comparison")
                if self.here.kind != "end"
                else self._error(start, "it compares nothing")
            )
        sql = " AND ".join(p.sql for p in parts)
        return Clause(f"({sql})", tuple(p for part in parts for p in part.parameters))

    def operand(self) -> Name | Value:
        token = self.here
        self.index += token.kind != "end"
        if token.kind == "number":
            return Value(_number(token.text), token.text)
        if token.kind == "text":
            inner = re.sub(r"\\([\"'\\])", r"\1", token.text[1:-1])
            return Value(inner, inner)
        if token.kind == "quoted":
            prefix, _, key = token.text[:-1].partition("`")
            return self.used(key, Name(key, _SPACES.get(prefix.rstrip(".")), quoted=True))
        if token.kind == "name":
            prefix, dot, key = token.text.partition(".")
            if dot and key and prefix in _SPACES:
                return self.used(token.text, Name(key, _SPACES[prefix]))
            return self.used(token.text, Name(token.text, None))
        if token.kind == "word" and token.text in ("true", "false"):
            return Value(token.text == "true", token.text)
        if token.kind == "word" and token.text.lstrip("+-") == "inf":
            return Value(float(token.text), token.text)
        if token.kind == "word" and token.text in ("none", "null"):
            return Value(None, "none")
        self.index -= token.kind != "end"
        raise self.refuse("a name or a value")

    def used(self, written: str, name: Name) -> Name:
        self.names.append((written, name))
        return name

    def compare(self, left: Name | Value, op: str, right: Name | Value, position: int) -> Clause:
        if isinstance(left, Value):
            if isinstance(right, Value):
                raise self._error(position, "it compares two values, and no name")
            if op not in _MIRRORED:
                raise self._error(position, "the name stands on the left of '~'")
            left, op, right = right, _MIRRORED[op], left
        if isinstance(right, Name):
            raise self._error(
                position, f"two names cannot be compared; put quotes around text: {right.key!r}"
            )
        if right.value is None:
            if op not in ("==", "!="):
                raise self._error(position, "'none' has no order")
            there = is_there(left, self.scope)
            return there if op == "!=" else there.negated()
        return compares(left, op, right, self.scope)

    def list_of(self, name: Name, *, negated: bool) -> Clause:
        closing = {"[": "]", "(": ")"}.get(self.take("[", "(") or "")
        if closing is None:
            raise self.refuse("'['")
        values: list[Value] = []
        while not self.take(closing):
            if values and not self.take(","):
                raise self.refuse(f"',' or {closing!r}")
            position = self.here.position
            value = self.operand()
            if isinstance(value, Name) or value.value is None:
                raise self._error(position, "a list holds numbers and quoted texts")
            values.append(value)
        if not values:
            raise self._error(self.here.position, "the list is empty")
        return member_of(name, values, negated=negated, scope=self.scope)

    def state_of(self, name: Name) -> Clause:
        negated = self.take("not") is not None
        if self.take("none", "null"):
            there = is_there(name, self.scope)
            return there if negated else there.negated()
        if self.take("nan"):
            found = is_nan(name, self.scope)
            return found.negated() if negated else found
        raise self.refuse("'none' or 'nan'")


def _number(text: str) -> int | float:
    try:
        whole = int(text)
    except ValueError:
        return float(text)
    # SQLite holds 64 bits; beyond, a float is as near as anything stored gets.
    return whole if -(2**63) <= whole < 2**63 else float(text)
