"""Literals: which texts in a program are secrets, by what stands before them and by what stands in them.

Reads no grammar but strings, comments and brackets, so that it does for several languages, for a part of a
file and for one that does not run. Refuses to take an expression for a secret: `token = open("name").read()`
stays as it is; of `token = get("NAME", "…")` only what stands for nothing found is masked.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

import msgspec

from stemmata.capture import MASK, Harmless, Span, assigned, looks_secret, paired, replaced

_KEY = r"[A-Za-z_][A-Za-z0-9_.-]{0,127}"
_TEXT = r"""(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
# name = "…", name: str = "…", "name": "…", environ["NAME"] = "…", f("NAME", "…"), ["--name", "…"].
_LITERAL = re.compile(
    rf"""(?P<lead>(?<![\w.])["']?(?P<dashes>--?)?(?P<key>{_KEY})\\?["']?\s{{0,4}}\]?\s{{0,4}}"""
    r"""(?::\s{0,4}[A-Za-z_][\w.\[\]| ]{0,60}=|[=!]?=|:|(?P<comma>,)|\()[\s(+]{0,40}[rRbBfFuU]{0,2})"""
    rf"""(?P<value>{_TEXT}|[0-9]{{6,}}\b)""",
    re.DOTALL,
)
# The same names before anything else that is assigned: a bracket, a call, `a or "…"`.
_ASSIGNED = re.compile(
    rf"""(?<![\w.])(?P<quote>["']?)(?P<key>{_KEY})["']?\s{{0,4}}\]?\s{{0,4}}"""
    r"""(?::\s{0,4}[A-Za-z_][\w.\[\]| ]{0,60}=|(?P<colon>:)|\|?=)(?!=)"""
)
# A flag among the arguments of a call: it is declared there, with its default.
_FLAG = re.compile(rf"""["']--?(?P<key>{_KEY})["']\s{{0,4}},""")
_LOGIN = re.compile(r"(?<!def )\blogin\s{0,4}\(")
_WANDB = re.compile(
    rf"""["']wandb["']\s*,\s*["']login["'](?:\s*,\s*["']--?[\w-]+["'])*\s*,\s*(?P<value>{_TEXT})""", re.DOTALL
)
_TOKEN = re.compile(
    rf"""(?P<space>[^\S\n]+|\\\n|\#[^\n]*)|(?P<line>\n)|[rRbBfFuU]{{0,2}}(?P<text>{_TEXT})|(?P<word>[A-Za-z_]\w*)"""
    r"""|[0-9][\w.]*|==|!=|<=|>=|:=|.""",
    re.DOTALL,
)
_BODY = re.compile(rf"""\#[^\n]*|(?P<text>{_TEXT})""", re.DOTALL)
_FIRST_OF = frozenset(("str", "bytes", "SecretStr", "Secret", "Field", "Option", "Argument"))
"""Calls whose first argument is the value itself."""
_SECOND_OF = frozenset(("get", "getenv", "pop", "setdefault"))
"""Calls whose second argument is what is taken where there is nothing."""
_DEFAULTS = frozenset(("default", "default_factory", "const", "value"))
_LOGIN_WORDS = frozenset(("key", "token", "password"))
_BEFORE = frozenset(("", "or", "else", "(", "[", "{", ",", "+", ":", "=", "text"))
"""What may stand before a text that is a value: after `==`, `in` or `%` it is held against one."""
_MOST, _LEAST, _IN_ALL = 20_000, 500, 2_000_000
"""Characters of an expression that are looked at: at most, at least where there are very many, and of all
together."""
_COLON = re.compile(r"\s*:")
_ON = re.compile(r"\s*(?:(or)\b|(?![\"']{3})[\"'])")
_ASSIGNED_BEFORE = re.compile(r"[\w.-]+\s*=$")
_FLAG_BEFORE = re.compile(r"(?<![\w-])--?[A-Za-z_][\w.-]*\s+$")
_MAY_BE_WORD = re.compile(r"(?i)pass|pwd|secret|auth|cred")
_TEMPLATE = re.compile(r"[{}%<$\\…*]|\.\.\.|^[\[(.=]|^[A-Za-z_][\w.]*\(|^[a-z_]+(?:\.[a-z_]+)+")
_NO_VALUE = re.compile(r"(?:[A-Z_]+|(?i:none|null|true|false))?[\"'`.,;:)\]}]*")
_WORD = re.compile(r"[a-z_-]+[`.,;:)\]]*")


def mask_literals(text: str, harmless: Harmless) -> str:
    """A program's text without the texts in it that are secrets, but those that are `harmless`."""

    def is_harmless(value: str) -> bool:
        bare = value.strip("\"'")
        return not bare or harmless(bare) or re.fullmatch(r"--?[A-Za-z][\w-]*", bare) is not None

    return replaced(
        text,
        [
            span
            for found in (
                _named(text),
                _expressions(text),
                _declared(text),
                _logins(text),
                paired(text, is_harmless, quoted=True),
                _inside(text, is_harmless),
            )
            for span in found
            if not is_harmless(text[span[0] : span[1]])
        ],
    )


def _masked(start: int, value: str) -> Span:
    quote = value[:3] if value[:3] in ('"""', "'''") else value[0] if value[0] in "\"'" else ""
    return start, start + len(value), quote + MASK + quote


def _named(text: str) -> Iterator[Span]:
    position = 0
    while found := _LITERAL.search(text, position):
        # The value may itself be a key (`("HF_TOKEN", "…")`).
        position = found.end("key")
        # Words beside each other are not each other's values, but after `"HF_TOKEN"` and flags they are.
        named = not found["comma"] or found["dashes"] or found["key"].isupper()
        is_key = found["comma"] and _is_key(text, found.end())
        if named and not is_key and looks_secret(found["key"]):
            yield _masked(found.start("value"), found["value"])


def _expressions(text: str) -> Iterator[Span]:
    ends: list[tuple[int, int]] | None = None
    telling = [found for found in _ASSIGNED.finditer(text) if looks_secret(found["key"])]
    for found in telling:
        # A colon follows a key of a dict; others are of an annotation, a block or a slice.
        before = text[max(0, found.start() - 200) : found.start()].rstrip(" \t")[-1:]
        if found["colon"] and not (found["quote"] and before in ("", *"{,(\n+-")):
            continue
        if ends is None:
            ends = [(body.start(), body.end()) for body in _BODY.finditer(text)]
        # An expression that begins in a text ends with it.
        at = bisect_right(ends, (found.start("key"), len(text))) - 1
        end = ends[at][1] if at >= 0 and ends[at][1] > found.end() else len(text)
        end = min(end, found.end() + _reach(len(telling)))
        yield from _telling(_values(text, found.end(), [], end), text, found["key"])


def _declared(text: str) -> Iterator[Span]:
    telling = [found for found in _FLAG.finditer(text) if looks_secret(found["key"])]
    for found in telling:
        end = found.end() + _reach(len(telling))
        values = _values(text, found.end(), [_Bracket("call", number=1)], end)
        yield from _telling(values, text, found["key"])


def _telling(spans: Iterator[Span], text: str, key: str) -> Iterator[Span]:
    """Without plain words, of names under which no word is a secret (`token_merge`, not `password`)."""
    for start, end, mask in spans:
        if _MAY_BE_WORD.search(key) or not _WORD.fullmatch(text[start:end].strip("\"'")):
            yield start, end, mask


def _logins(text: str) -> Iterator[Span]:
    logins = list(_LOGIN.finditer(text))
    for found in logins:
        end = found.end() + _reach(len(logins))
        yield from _values(text, found.end(), [_Bracket("call", "login")], end)
    for found in _WANDB.finditer(text):
        yield _masked(found.start("value"), found["value"])


class _Bracket(msgspec.Struct):
    """An open bracket: "call", "index" or "values"; of a call, whose it is and which argument comes."""

    kind: str
    callee: str = ""
    number: int = 0
    keyword: str = ""

    def may_hold(self) -> bool:
        """Whether a text right in it can be the value, and not what tells where that is."""
        if self.kind != "call":
            return self.kind == "values"
        if self.callee == "login":
            return not self.keyword or self.keyword in _LOGIN_WORDS
        if self.keyword:
            return self.keyword in _DEFAULTS
        return self.callee in (_FIRST_OF if self.number == 0 else _SECOND_OF if self.number == 1 else ())


def _reach(count: int) -> int:
    """Characters to look at of each of so many expressions."""
    return min(_MOST, max(_LEAST, _IN_ALL // max(count, 1)))


def _values(text: str, start: int, above: list[_Bracket], end: int) -> Iterator[Span]:
    """The texts that an expression may have as its value; it begins at `start`, within `above`, and is looked
    at up to `end`."""
    outside, before, word = len(above), "", ""
    for token in _TOKEN.finditer(text, start, end):
        said, inner = token[0], above[-1] if above else None
        if token["space"] is not None:
            continue
        if token["line"] is not None:
            if not above and before and not _goes_on(text, token.end(), before):
                return
            continue
        if token["text"] is not None:
            is_key = inner is not None and inner.kind == "values" and _is_key(text, token.end())
            if before in _BEFORE and not is_key and all(bracket.may_hold() for bracket in above):
                yield _masked(token.start("text"), token["text"])
            before = "text"
            continue
        if said in "([{":
            after = before == "word" or before in (")", "]", "text")
            kind = "values" if said == "{" or not after else "call" if said == "(" else "index"
            above.append(_Bracket(kind, word if before == "word" else ""))
            said = said if kind == "values" else "("
        elif said in ")]}":
            if not above or len(above) <= outside > 0:
                return
            above.pop()
        elif said == "," and inner is not None:
            inner.number, inner.keyword = inner.number + 1, ""
        elif not above and said in ",;:":
            return
        elif said == "=" and inner is not None and inner.kind == "call":
            inner.keyword = word
        before = _before(said, token["word"], before)
        word = said if token["word"] is not None else word


def _before(said: str, word: str | None, before: str) -> str:
    if word is None or said in ("or", "else"):
        return said
    return before if said == "lambda" else "word" if said not in ("and", "if", "in", "is", "not") else said


def _goes_on(text: str, position: int, before: str) -> bool:
    """Whether the next line belongs to the expression: `or "…"`, a text after a text."""
    following = _ON.match(text, position)
    return following is not None and (following[1] is not None or before == "text")


def _is_key(text: str, position: int) -> bool:
    return _COLON.match(text, position) is not None


def _inside(text: str, harmless: Harmless) -> Iterator[Span]:
    """What is assigned in a text: in a command (`--api-key …`, `TOKEN=…`), an address (`?token=…`)."""

    def is_template(value: str) -> bool:
        bare = value.strip("\"'\\")
        return harmless(bare) or bool(_TEMPLATE.search(bare) or _NO_VALUE.fullmatch(bare))

    for found in _BODY.finditer(text):
        body = found["text"]
        if body is None or ("=" not in body and "--" not in body):
            continue
        start = found.start("text")
        quote = 3 if body[:3] in ('"""', "'''") else 1
        inner = body[quote:-quote]
        for first, last, mask in assigned(inner, is_template):
            before = inner[:first]
            by_blank = before[-1:].isspace()
            # Prose has words after its flags and colons; what is given there is no plain word.
            if by_blank and (not _FLAG_BEFORE.search(before[-160:]) or _WORD.fullmatch(inner[first:last])):
                continue
            if not by_blank and before[-1:] != "=":
                continue
            named = _ASSIGNED_BEFORE.search(before[-160:])
            if _WORD.fullmatch(inner[first:last]) and not _MAY_BE_WORD.search(named[0] if named else ""):
                continue
            yield start + quote + first, start + quote + last, mask
