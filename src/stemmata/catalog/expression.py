"""Filter expressions: `eval_loss < 0.5 and lora.r == 8` as SQL over versions and facts.

Owns the language and its limits. Every name and value reaches SQLite as a parameter, never as SQL.

    or-chain   := and-chain { "or" and-chain }
    and-chain  := term { "and" term }
    term       := "not" term | "(" or-chain ")" | comparison
    comparison := operand op operand { op operand }       a name on one side of each op: 0.1 < loss <= 0.5
                | name ["not"] "in" "[" value { "," value } "]"
                | name "is" ["not"] ("none" | "nan")
    op         := "==" | "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"            ~: contains, in any case
    value      := number | "text" | 'text' | true | false | none

A name is a field (see FIELDS), else the metric, label, config or data key of that name, in this
order; `metrics.x`, `label.x`, `config.x` and `data.x` say which, and backquotes take any character.
What a version does not have, and NaN, make every comparison false, `!=` too; `is none` and `is nan`
find them. A version can have many names, aliases and tags: `name == "x"` holds if one of them is x,
`name != "x"` if none is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from stemmata.errors import InvalidExpression

MAX_LENGTH = 2000
MAX_DEPTH = 50

Parameter = str | int | float

_SPACES = {
    "metric": "metric",
    "metrics": "metric",
    "label": "label",
    "labels": "label",
    "config": "config",
    "data": "data",
}
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

_WORDS = frozenset({"and", "or", "not", "in", "is", "none", "null", "nan", "inf", "true", "false"})
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_TOKEN = re.compile(
    r"""(?P<blank>\s+)
      | (?P<number>[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
      | (?P<minus_inf>[-+]inf\b)
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<quoted>(?:(?:metrics?|labels?|config|data)\.)?`[^`]+`)
      | (?P<name>[^\W\d][\w./@+-]*)
      | (?P<sign>==|!=|<>|<=|>=|[=<>~()\[\],])
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Clause:
    """SQL with its parameters, in order."""

    sql: str
    parameters: tuple[Parameter, ...] = ()
    depth: int = 0

    def negated(self) -> Clause:
        return Clause(f"NOT {self.sql}", self.parameters, self.depth)


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled expression: a condition on the row `v` of `versions`, and the names it speaks of."""

    sql: str
    parameters: tuple[Parameter, ...]
    names_used: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SortKey:
    """What to order by: numbers before texts, versions without a value last."""

    number: Clause
    text: Clause


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, text, name, quoted, word, sign, end
    text: str
    position: int


@dataclass(frozen=True, slots=True)
class _Name:
    key: str
    space: str | None  # None: any
    quoted: bool = False

    @property
    def is_field(self) -> bool:
        return self.space is None and not self.quoted and self.key in FIELDS


@dataclass(frozen=True, slots=True)
class _Value:
    value: str | int | float | bool | None
    written: str


def compile_filter(text: str, *, at: str | None = None) -> Filter:
    """Compile an expression; with `at` (stored time) on metrics, labels and names as they stood then.

    Raises InvalidExpression with the position of what cannot be read.
    """
    parser = _Parser(text, at)
    clause = parser.whole()
    return Filter(clause.sql, clause.parameters, tuple(dict.fromkeys(parser.names)))


def compile_sort(name: str, *, at: str | None = None) -> SortKey:
    """Compile a single name to order by. Raises InvalidExpression."""
    parser = _Parser(name, at)
    found = parser.single_name()
    if found.is_field and found.key in _REFS:
        return SortKey(Clause("NULL"), Clause("v.name"))
    if found.is_field:
        number, words = _NUMBERS.get(found.key, "NULL"), _TEXTS.get(found.key, "NULL")
        return SortKey(Clause(number), Clause(words))
    source = _facts(found, at)
    return SortKey(
        Clause(f"(SELECT f.num {source.sql})", source.parameters),
        Clause(f"(SELECT f.text {source.sql})", source.parameters),
    )


def _facts(name: _Name, at: str | None) -> Clause:
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


def _comparison(number: str, words: str, op: str, value: _Value) -> Clause:
    """`op` between the two readings of a fact and a literal; NULL counts as false."""
    literal = value.value
    # A literal number also equals a text that spells it so: labels are always text.
    spelled = f"({number} IS NULL AND {words} = ?)"
    if op == "~":
        return Clause(f"instr(lower({words}), lower(?)) > 0", (value.written,))
    if op == "!=":
        same = _comparison(number, words, "==", value)
        present = f"({number} IS NOT NULL OR ({words} IS NOT NULL AND {words} != 'nan'))"
        return Clause(f"({present} AND NOT COALESCE({same.sql}, 0))", same.parameters)
    if isinstance(literal, bool):
        return Clause(f"{words} = ?", ("true" if literal else "false",))
    if isinstance(literal, int | float):
        if op == "==":
            return Clause(f"({number} = ? OR {spelled})", (literal, value.written))
        return Clause(f"{number} {op} ?", (literal,))
    sql_op = "=" if op == "==" else op
    return Clause(f"({number} IS NULL AND {words} {sql_op} ?)", (str(literal),))


def _membership(number: str, words: str, values: Sequence[_Value]) -> Clause:
    numbers = [v.value for v in values if isinstance(v.value, int | float) and not isinstance(v.value, bool)]
    texts = [v.written for v in values]
    marks = ", ".join("?" * len(texts))
    sql = f"{words} IN ({marks})"
    if numbers:
        sql += f" OR {number} IN ({', '.join('?' * len(numbers))})"
    return Clause(f"({sql})", (*texts, *numbers))


@dataclass(slots=True)
class _Parser:
    text: str
    at: str | None
    names: list[str] = field(default_factory=list)
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
            if kind == "minus_inf":
                kind = "word"
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

    def single_name(self) -> _Name:
        found = self.operand()
        if not isinstance(found, _Name) or self.here.kind != "end":
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
        if isinstance(left, _Name):
            negated = self.take("not") is not None
            if self.take("in"):
                return self.member_of(left, negated)
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

    def operand(self) -> _Name | _Value:
        token = self.here
        self.index += token.kind != "end"
        if token.kind == "number":
            return _Value(_number(token.text), token.text)
        if token.kind == "text":
            inner = re.sub(r"\\([\"'\\])", r"\1", token.text[1:-1])
            return _Value(inner, inner)
        if token.kind == "quoted":
            prefix, _, key = token.text[:-1].partition("`")
            self.names.append(key)
            return _Name(key, _SPACES.get(prefix.rstrip(".")), quoted=True)
        if token.kind == "name":
            prefix, dot, key = token.text.partition(".")
            self.names.append(token.text)
            if dot and key and prefix in _SPACES:
                return _Name(key, _SPACES[prefix])
            return _Name(token.text, None)
        if token.kind == "word" and token.text in ("true", "false"):
            return _Value(token.text == "true", token.text)
        if token.kind == "word" and token.text.lstrip("+-") == "inf":
            return _Value(float(token.text), token.text)
        if token.kind == "word" and token.text in ("none", "null"):
            return _Value(None, "none")
        self.index -= token.kind != "end"
        raise self.refuse("a name or a value")

    def compare(self, left: _Name | _Value, op: str, right: _Name | _Value, position: int) -> Clause:
        if isinstance(left, _Value):
            if isinstance(right, _Value):
                raise self._error(position, "it compares two values, and no name")
            if op not in _MIRRORED:
                raise self._error(position, "the name stands on the left of '~'")
            left, op, right = right, _MIRRORED[op], left
        if isinstance(right, _Name):
            raise self._error(
                position, f"two names cannot be compared; put quotes around text: {right.key!r}"
            )
        value = right
        if value.value is None:
            if op not in ("==", "!="):
                raise self._error(position, "'none' has no order")
            return self.absent(left, negated=op == "!=")
        if left.is_field and left.key == "id":
            value = _Value(value.written.lower(), value.written.lower())
            if op in ("==", "!="):
                # Ids are written by their first digits everywhere else too.
                words = f"substr({_TEXTS['id']}, 1, {max(4, len(value.written))})"
                return self.on(left, _comparison("NULL", words, op, value))
        if op == "!=" and left.is_field and left.key in _REFS:
            return self.compare(left, "==", value, position).negated()
        return self.on(left, _comparison(*self.columns(left), op, value))

    def member_of(self, name: _Name, negated: bool) -> Clause:
        closing = {"[": "]", "(": ")"}.get(self.take("[", "(") or "")
        if closing is None:
            raise self.refuse("'['")
        values: list[_Value] = []
        while not self.take(closing):
            if values and not self.take(","):
                raise self.refuse(f"',' or {closing!r}")
            position = self.here.position
            value = self.operand()
            if isinstance(value, _Name) or value.value is None:
                raise self._error(position, "a list holds numbers and quoted texts")
            values.append(value)
        if not values:
            raise self._error(self.here.position, "the list is empty")
        number, words = self.columns(name)
        found = _membership(number, words, values)
        if negated and name.is_field and name.key in _REFS:
            return self.on(name, found).negated()
        if negated:
            present = f"({number} IS NOT NULL OR ({words} IS NOT NULL AND {words} != 'nan'))"
            found = Clause(f"({present} AND NOT COALESCE({found.sql}, 0))", found.parameters)
        return self.on(name, found)

    def state_of(self, name: _Name) -> Clause:
        negated = self.take("not") is not None
        if self.take("none", "null"):
            return self.absent(name, negated=negated)
        if self.take("nan"):
            number, words = self.columns(name)
            found = self.on(name, Clause(f"({number} IS NULL AND {words} = 'nan')"))
            return found.negated() if negated else found
        raise self.refuse("'none' or 'nan'")

    # --- where a name's value is ------------------------------------------------------------------

    def columns(self, name: _Name) -> tuple[str, str]:
        """SQL of the number and the text that the name stands for, within `on`."""
        if not name.is_field:
            return "f.num", "f.text"
        if name.key in _REFS:
            return "NULL", "r.name"
        return _NUMBERS.get(name.key, "NULL"), _TEXTS.get(name.key, "NULL")

    def on(self, name: _Name, condition: Clause) -> Clause:
        """The condition on the row that holds the name's value; false where there is none."""
        if not name.is_field:
            source = _facts(name, self.at)
            sql = f"COALESCE((SELECT {condition.sql} {source.sql}), 0)"
            return Clause(sql, (*condition.parameters, *source.parameters))
        if name.key in _REFS:
            source = _ref_names(name.key, self.at)
            sql = f"(v.id IN (SELECT r.target {source.sql} AND {condition.sql}))"
            return Clause(sql, (*source.parameters, *condition.parameters))
        return Clause(f"COALESCE({condition.sql}, 0)", condition.parameters)

    def absent(self, name: _Name, *, negated: bool) -> Clause:
        number, words = self.columns(name)
        found = self.on(name, Clause(f"({number} IS NOT NULL OR {words} IS NOT NULL)"))
        return found if negated else found.negated()


def _number(text: str) -> int | float:
    try:
        whole = int(text)
    except ValueError:
        return float(text)
    # SQLite holds 64 bits; beyond, a float is as near as anything stored gets.
    return whole if -(2**63) <= whole < 2**63 else float(text)
