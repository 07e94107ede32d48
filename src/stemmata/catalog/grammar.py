"""The grammar of filters and gates: from text to conditions. Owns the language and its limits.

    or-chain   := and-chain { "or" and-chain }
    and-chain  := term { "and" term }
    term       := "not" term | "(" or-chain ")" | comparison
    comparison := operand op operand { op operand }       a name on one side of each op: 0.1 < loss <= 0.5
                | name ["not"] "in" "[" value { "," value } "]"
                | name "is" ["not"] ("none" | "nan")
    op         := "==" | "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"            ~: contains, a as A
    value      := number | "text" | 'text' | true | false | none

A gate is about one version and may name others; there an operand is

    operand    := product { ("+" | "-") product }         of numbers; blanks around + and -
    product    := factor { "*" factor }
    factor     := name | value | "@" selector "." name    @production.accuracy: of the version named there

Where versions come from is asked of many, with == != and in: `descends_from == "sentiment@v1"` (model@name or
an id's first digits), `trained_on == "imdb"` (a name or fingerprint of data), `from_base == "gpt2"`.

A name is a field (see FIELDS), else the metric, label, config or data key of that name, in this
order; `metrics.x`, `label.x`, `config.x` and `data.x` say which, `measured_on.x` is what the metric x was
measured on, and backquotes take any character, of a selector too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from stemmata.catalog.ancestry import names_a_version
from stemmata.catalog.conditions import DESCENDS_FROM, MEASURED_ON, Name, Value
from stemmata.errors import InvalidExpression

MAX_LENGTH = 2000
MAX_DEPTH = 50
_MAX_TERMS = 256

_SPACES = {
    "metric": "metric",
    "metrics": "metric",
    "label": "label",
    "labels": "label",
    "config": "config",
    "data": "data",
    MEASURED_ON: MEASURED_ON,
}
_DAY = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?")
_WORDS = frozenset({"and", "or", "not", "in", "is", "none", "null", "nan", "inf", "true", "false"})
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_QUOTED = r"(?:(?:metrics?|labels?|config|data|measured_on)\.)?`[^`]+`"
_NAME = r"[^\W\d][\w./@+-]*"
_TOKEN = re.compile(
    rf"""(?P<blank>\s+)
      | (?P<number>[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
      | (?P<inf>[-+](?i:inf)\b)
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<quoted>{_QUOTED})
      | (?P<name>{_NAME})
      | (?P<other>@(?:`[^`]+`|[\w/+-]+)\.(?:{_QUOTED}|{_NAME}))
      | (?P<sign>==|!=|<>|<=|>=|[=<>~()\[\],])
      | (?P<arithmetic>[-+*])
    """,
    re.VERBOSE | re.DOTALL,
)
_OF_GATES = ("other", "arithmetic")


# --- what a text means ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Other:
    """`@selector.name`: what the version that the selector names has under that name."""

    selector: str
    name: Name
    written: str


Factor: TypeAlias = Name | Value | Other


@dataclass(frozen=True, slots=True)
class Sum:
    """Products of numbers, each added (1) or taken away (-1)."""

    products: tuple[tuple[int, tuple[Factor, ...]], ...]


Operand: TypeAlias = Factor | Sum


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left op right`; what is compared with a plain value is on the left."""

    left: Operand
    op: str
    right: Operand
    written: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """`name in [values]`, or `not in`."""

    name: Name
    values: tuple[Value, ...]
    negated: bool
    written: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Is:
    """`name is none` or `is nan`, or `is not`."""

    name: Name
    what: str
    negated: bool
    written: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Not:
    part: Node

    @property
    def depth(self) -> int:
        return self.part.depth


@dataclass(frozen=True, slots=True)
class Chain:
    """Two parts or more, joined by "and" or "or"."""

    word: str
    parts: tuple[Node, ...]
    depth: int


Leaf: TypeAlias = Comparison | Member | Is
Node: TypeAlias = Leaf | Not | Chain


@dataclass(frozen=True, slots=True)
class Parsed:
    """A whole text: its condition, and the names it speaks of, as written."""

    node: Node
    names: tuple[str, ...]
    used: tuple[Name, ...]
    """The same, as what they name."""


def parse_filter(text: str) -> Parsed:
    """What a filter over many versions says. Raises InvalidExpression with the position."""
    return _whole(_Parser(text, gate=False))


def parse_gate(text: str) -> Parsed:
    """What a requirement of one version says. Raises InvalidExpression with the position."""
    return _whole(_Parser(text, gate=True))


def parse_name(text: str) -> Name:
    """A single name. Raises InvalidExpression."""
    return _Parser(text, gate=False).single_name()


def _whole(parser: _Parser) -> Parsed:
    node = parser.whole()
    written = tuple(dict.fromkeys(text for text, _ in parser.names))
    return Parsed(node, written, tuple(name for _, name in parser.names))


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, text, name, quoted, other, word, sign, end
    text: str
    position: int


@dataclass(slots=True)
class _Parser:
    text: str
    gate: bool
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
            if match is None or (match.lastgroup in _OF_GATES and not self.gate):
                raise self._error(position, self._strange(self.text[position]))
            kind, written = str(match.lastgroup), match.group()
            if kind == "number" and re.match(r"[\w.]", self.text[match.end() : match.end() + 1]):
                raise self._error(match.end(), "a number runs into a name")
            if kind == "name" and written.lower() in _WORDS:
                kind, written = "word", written.lower()
            if kind == "inf":
                kind, written = "word", written.lower()
            if kind != "blank":
                self.tokens.append(_Token("sign" if kind == "arithmetic" else kind, written, position))
            position = match.end()
        self.tokens.append(_Token("end", "", position))

    def _strange(self, char: str) -> str:
        if char in "\"'`":
            return "the text is never closed"
        if char == "@" and self.gate:
            return "another version's value is written @alias.metric"
        if char == "@":
            return "'@' means nothing here; gates alone speak of other versions (stemmata promote --require)"
        return f"{char!r} means nothing here"

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
        before = self.tokens[self.index - 1] if self.index else None
        if self.here.text == "(" and before is not None and before.kind == "name":
            return self._error(before.position, f"there are no functions, so {before.text!r} is none")
        return self._error(self.here.position, f"{wanted} is expected, not {found}")

    def written(self, first: int) -> str:
        """The text from that token to the last one consumed."""
        end = self.tokens[self.index - 1]
        return self.text[self.tokens[first].position : end.position + len(end.text)]

    # --- grammar --------------------------------------------------------------------------------

    def whole(self) -> Node:
        node = self.chain("or", 0)
        if self.here.kind != "end":
            raise self.refuse("'and', 'or' or the end")
        return node

    def single_name(self) -> Name:
        found = self.factor()
        if not isinstance(found, Name) or self.here.kind != "end":
            raise self._error(0, "a single name is expected")
        if found.is_lineage:
            raise self._error(0, f"{found.key!r} has no order")
        return found

    def chain(self, word: str, depth: int) -> Node:
        parts: list[Node] = []
        while not parts or self.take(word):
            parts.append(self.chain("and", depth) if word == "or" else self.term(depth))
        if len(parts) == 1:
            return parts[0]
        deepest = max(p.depth for p in parts) + 1
        self.bound(deepest)
        return Chain(word, tuple(parts), deepest)

    def bound(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._error(self.here.position, f"it is nested more than {MAX_DEPTH} deep")

    def term(self, depth: int) -> Node:
        self.bound(depth)
        if self.take("not"):
            return Not(self.term(depth + 1))
        if self.take("("):
            inner = self.chain("or", depth + 1)
            if not self.take(")"):
                raise self.refuse("')'")
            return inner
        return self.comparison()

    def comparison(self) -> Node:
        first = self.index
        start = self.here.position
        left = self.operand()
        if isinstance(left, Name):
            negated = self.take("not") is not None
            if self.take("in"):
                return self.list_of(left, first, negated=negated)
            if negated:
                raise self.refuse("'in'")
            if self.take("is"):
                return self.state_of(left, first)
        parts: list[Node] = []
        while op := self.take("==", "=", "!=", "<>", "<", "<=", ">", ">=", "~"):
            op = {"=": "==", "<>": "!="}.get(op, op)
            position, begins = self.here.position, self.index
            right = self.operand()
            if len(parts) == _MAX_TERMS:
                raise self._error(position, f"more than {_MAX_TERMS} comparisons in one chain")
            parts.append(self.compare(left, op, right, position, first))
            left, first = right, begins
        if not parts:
            raise (
                self.refuse("a comparison")
                if self.here.kind != "end"
                else self._error(start, "it compares nothing")
            )
        # As deep as one comparison: they stand beside each other.
        return parts[0] if len(parts) == 1 else Chain("and", tuple(parts), 0)

    def operand(self) -> Operand:
        products: list[tuple[int, tuple[Factor, ...]]] = []
        sign: int | None = 1
        while sign is not None:
            products.append((sign, self.product(alone=not products)))
            sign = self.sign() if self.gate else None
        if len(products) == 1 and len(products[0][1]) == 1:
            return products[0][1][0]
        return Sum(tuple(products))

    def sign(self) -> int | None:
        """A sign that goes on with a sum, its own or that of a number; None if the sum is over."""
        if self.here.kind == "number" and self.here.text[0] in "+-":
            return 1  # the number has it
        found = self.take("+", "-")
        return None if found is None else -1 if found == "-" else 1

    def product(self, *, alone: bool) -> tuple[Factor, ...]:
        position = self.here.position
        factors = [self.factor()]
        while self.gate and self.take("*"):
            factors.append(self.factor())
        if not alone or len(factors) > 1 or (self.gate and self.goes_on()):
            for each in factors:
                if isinstance(each, Value) and (isinstance(each.value, bool | str) or each.value is None):
                    raise self._error(
                        position, f"only numbers are reckoned with, and {each.written!r} is none"
                    )
        return tuple(factors)

    def goes_on(self) -> bool:
        here = self.here
        return (here.kind == "sign" and here.text in ("+", "-")) or (
            here.kind == "number" and here.text[0] in "+-"
        )

    def factor(self) -> Factor:
        token = self.here
        self.index += token.kind != "end"
        if token.kind == "number":
            return Value(_number(token.text), token.text)
        if token.kind == "text":
            inner = re.sub(r"\\([\"'\\])", r"\1", token.text[1:-1])
            return Value(inner, inner)
        if token.kind in ("quoted", "name"):
            return self.name(token.text)
        if token.kind == "other":
            quoted = re.fullmatch(r"@`([^`]+)`\.(.*)", token.text, re.DOTALL)
            selector, _, rest = token.text[1:].partition(".")
            if quoted is not None:
                selector, rest = quoted.groups()
            return Other(selector, self.name(rest, noted=False), token.text)
        if token.kind == "word" and token.text in ("true", "false"):
            return Value(token.text == "true", token.text)
        if token.kind == "word" and token.text.lstrip("+-") == "inf":
            return Value(float(token.text), token.text)
        if token.kind == "word" and token.text in ("none", "null"):
            return Value(None, "none")
        self.index -= token.kind != "end"
        raise self.refuse("a name or a value")

    def name(self, written: str, *, noted: bool = True) -> Name:
        if written.endswith("`"):
            prefix, _, key = written[:-1].partition("`")
            shown, found = key, Name(key, _SPACES.get(prefix.rstrip(".")), quoted=True)
        else:
            prefix, dot, key = written.partition(".")
            shown, found = written, Name(written, None)
            if dot and key and prefix in _SPACES:
                found = Name(key, _SPACES[prefix])
        if self.gate and found.is_lineage:
            raise self._error(self.here.position, f"{found.key!r} is asked of many versions, not in a gate")
        if noted:
            self.names.append((shown, found))
        return found

    def compare(self, left: Operand, op: str, right: Operand, position: int, first: int) -> Comparison:
        written = self.written(first)
        if isinstance(left, Value):
            if isinstance(right, Value):
                raise self._error(position, "it compares two values, and no name")
            if op not in _MIRRORED:
                raise self._error(position, "the name stands on the left of '~'")
            left, op, right = right, _MIRRORED[op], left
        if isinstance(right, Name) and not self.gate:
            raise self._error(
                position, f"two names cannot be compared; put quotes around text: {right.key!r}"
            )
        if not _names_something(left) and not _names_something(right):
            raise self._error(position, "it compares two values, and no name")
        if isinstance(left, Name) and left.is_lineage:
            self.check_lineage(left, op, right, position)
        if _is_created_at(left) and isinstance(right, Value) and right.value is not None and op != "~":
            right = self._moment(right, position)
        if op == "~" and not (isinstance(left, Name) and isinstance(right, Value)):
            raise self._error(position, "'~' stands between a name and a text")
        if isinstance(left, Sum) and isinstance(right, Value) and isinstance(right.value, str | bool):
            raise self._error(position, f"only numbers are reckoned with, and {right.written!r} is none")
        if isinstance(right, Value) and right.value is None:
            if op not in ("==", "!="):
                raise self._error(position, "'none' has no order")
            if not isinstance(left, Name):
                raise self._error(position, "'none' is compared with a name of this version alone")
        return Comparison(left, op, right, written)

    def _moment(self, value: Value, position: int) -> Value:
        """What `created_at` is compared with, as that is kept: a phrase, as text, is before or after all."""
        moment = _as_kept(value.written)
        if moment is None:
            reason = f"{value.written!r} is no date such as '2026-11-28' or '2026-11-28T09:30Z', in UTC"
            raise self._error(position, reason)
        return Value(moment, moment)

    def check_lineage(self, name: Name, op: str, right: Operand, position: int) -> None:
        """Refuse what can be said of metrics, and not of where a version comes from."""
        allowed = ("==", "!=") if name.key == DESCENDS_FROM else ("==", "!=", "~")
        if op not in allowed:
            raise self._error(position, f"{name.key!r} goes with {', '.join(allowed)} and in [...] alone")
        if not isinstance(right, Value) or right.value is None:
            raise self._error(position, f"{name.key!r} is compared with a quoted text")
        if name.key == DESCENDS_FROM and not names_a_version(right.written):
            reason = "a version is written model@name (no latest, best or ~), or as an id's first digits"
            raise self._error(position, reason)

    def list_of(self, name: Name, first: int, *, negated: bool) -> Member:
        closing = {"[": "]", "(": ")"}.get(self.take("[", "(") or "")
        if closing is None:
            raise self.refuse("'['")
        values: list[Value] = []
        while not self.take(closing):
            if values and not self.take(","):
                raise self.refuse(f"',' or {closing!r}")
            position = self.here.position
            value = self.factor()
            if not isinstance(value, Value) or value.value is None:
                raise self._error(position, "a list holds numbers and quoted texts")
            if name.is_lineage:
                self.check_lineage(name, "==", value, position)
            values.append(self._moment(value, position) if _is_created_at(name) else value)
        if not values:
            raise self._error(self.here.position, "the list is empty")
        return Member(name, tuple(values), negated, self.written(first))

    def state_of(self, name: Name, first: int) -> Is:
        if name.is_lineage:
            raise self._error(self.here.position, f"{name.key!r} is compared with a quoted text")
        negated = self.take("not") is not None
        if self.take("none", "null"):
            return Is(name, "none", negated, self.written(first))
        if self.take("nan"):
            return Is(name, "nan", negated, self.written(first))
        raise self.refuse("'none' or 'nan'")


def _names_something(operand: Operand) -> bool:
    if isinstance(operand, Sum):
        return any(not isinstance(f, Value) for _, product in operand.products for f in product)
    return not isinstance(operand, Value)


def _number(text: str) -> int | float:
    try:
        whole = int(text)
    except ValueError:
        return float(text)
    # SQLite holds 64 bits; beyond, a float is as near as anything stored gets.
    return whole if -(2**63) <= whole < 2**63 else float(text)


def _is_created_at(operand: Operand) -> bool:
    return isinstance(operand, Name) and operand.is_field and operand.key == "created_at"


def _as_kept(text: str) -> str | None:
    """A year, month or day as its first digits, a time in UTC; None for anything else."""
    try:
        if _DAY.fullmatch(text):
            datetime.fromisoformat(f"{text}-01-01"[:10])
            return text
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    except (ValueError, OverflowError):
        return None
