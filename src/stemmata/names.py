"""Names and references: what a name may be, and the grammar that people type.

Owns the syntax alone; what a reference points at is decided by `resolve`, against a catalog.

    reference := ["id:"] hex{4,64} suffix | model ["@" selector] suffix
    suffix    := { "~" [N] | "@{" (N | when) "}" }      (at most one "@{...}")
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

import msgspec

from stemmata.errors import InvalidName, InvalidReference

MAX_NAME_BYTES = 255
RESERVED = frozenset({"latest", "best"})
_HEX = re.compile(r"[0-9a-f]{4,64}", re.IGNORECASE)
_FORBIDDEN = frozenset("@{}~:\\?*[]^\"'`<>|")
_EXACT = re.compile(r"([^~]+)~[0-9a-f]{32}")
_MAX_STEPS = 1_000_000
PROTECT = "protect:"
"""How the key of a model's setting begins that protects an alias; the alias's key follows."""


def clean_name(text: str, *, reserved: frozenset[str] = RESERVED) -> str:
    """Return `text` in NFC if it may name a model, run, alias, tag or version.

    Refused: empty or over 255 bytes of UTF-8; whitespace, control and unassigned characters
    (assigned ones fold alike in every later Unicode); reference syntax; empty, `.` or `..` parts;
    a leading `-`; what reads as an id (4 to 64 hex digits); `latest` and `best`, also as
    a last part where they would hide a selector (`<run>/latest`).

    Raises InvalidName.
    """
    name = unicodedata.normalize("NFC", text)

    def refuse(reason: str) -> InvalidName:
        return InvalidName(name=text, reason=reason)

    if not name:
        raise refuse("it is empty")
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise refuse("it is not valid Unicode") from None
    if size > MAX_NAME_BYTES:
        raise refuse(f"it is {size} bytes long, the limit is {MAX_NAME_BYTES}")
    for char in name:
        category = unicodedata.category(char)
        if char.isspace() or category[0] == "C" or category in ("Zl", "Zp"):
            raise refuse(f"it contains {char!r}")
        if char in _FORBIDDEN:
            raise refuse(f"it contains {char!r}, which references use")
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise refuse("it has an empty, '.' or '..' part")
    if ".." in name:
        raise refuse("it contains '..'")
    if name.startswith("-"):
        raise refuse("it begins with '-'")
    if _HEX.fullmatch(name):
        raise refuse("it reads as an id, being 4 or more digits from 0 to 9 and a to f")
    if name_key(name) in reserved:
        raise refuse("that word is a selector")
    if name_key(parts[-1]) == "latest":
        raise refuse("'…/latest' is a selector")
    return name


def name_key(name: str) -> str:
    """What two names must differ in: NFC of the case folding of NFC."""
    if name.isascii():
        return name.lower()
    folded = unicodedata.normalize("NFC", name).casefold()
    return unicodedata.normalize("NFC", folded)


def slug(text: str) -> str:
    """A usable name made from any text (a folder's path, a run name with blanks)."""
    kept = [
        c if not (c.isspace() or c in _FORBIDDEN or unicodedata.category(c)[0] == "C") else "-"
        for c in unicodedata.normalize("NFC", text)
    ]
    parts = [re.sub(r"\.{2,}", ".", p).strip("-.") for p in "".join(kept).split("/")]
    name = "/".join(p for p in parts if p)
    while len(name.encode("utf-8", "replace")) > 120:
        name = name[:-1]
    name = name.strip("-./") or "unnamed"
    if _HEX.fullmatch(name) or name_key(name.split("/")[-1]) in RESERVED:
        name += "-run"
    return clean_name(name)


def exact_slug(text: str) -> str:
    """`slug`, and behind a `~` a digest of the text where the slug alone does not tell it from every other.

    Of what this returned it returns the same. The `~` is in no slug.
    """
    known = _EXACT.fullmatch(text)
    if known and known[1] == slug(known[1]):
        return text
    name, whole = slug(text), unicodedata.normalize("NFC", text)
    if name == whole:
        return name
    return f"{name}~{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


class Reference(msgspec.Struct, frozen=True):
    """A parsed reference. Exactly one of `model` and `id_prefix` is set, unless both are
    possible readings (a bare word of hex digits that may also be a model)."""

    text: str
    model: str | None
    id_prefix: str | None
    selector: str | None
    ancestors: int
    previous: int | None
    """`@{N}`: the alias's value N moves ago."""
    when: str | None
    """`@{phrase}`: as things stood then."""


_SUFFIX = re.compile(r"~(?P<steps>[0-9]*)|@\{(?P<braces>[^{}]*)\}")


def parse_reference(text: str) -> Reference:
    """Parse a reference; raises InvalidReference with the reason."""

    def refuse(reason: str) -> InvalidReference:
        return InvalidReference(reference=text, reason=reason)

    if not text or text != text.strip():
        raise refuse("it is empty or has blanks around it")
    if len(text) > 2000:
        raise refuse("it is too long")
    cut = min((i for i in (text.find("~"), text.find("@{")) if i >= 0), default=len(text))
    head, rest = text[:cut], text[cut:]
    ancestors, previous, when = 0, None, None
    while rest:
        match = _SUFFIX.match(rest)
        if match is None:
            raise refuse(f"{rest!r} is neither ~N nor @{{...}}")
        rest = rest[match.end() :]
        braces = match["braces"]
        if braces is None:
            steps = match["steps"]
            ancestors += int(steps[:8]) if steps else 1
            if len(steps) > 7 or ancestors > _MAX_STEPS:
                raise refuse("it goes back further than any history")
        elif previous is not None or when is not None:
            raise refuse("it has more than one @{...}")
        elif not braces.strip():
            raise refuse("@{} is empty")
        elif braces.isascii() and braces.isdigit() and len(braces) < 4:
            previous = int(braces)
        else:
            when = braces.strip()
    forced = head.startswith("id:")
    body = head[3:] if forced else head
    if forced or "@" not in body:
        if _HEX.fullmatch(body):
            model = None if forced else body
            return Reference(text, model, body.lower(), None, ancestors, previous, when)
        if forced:
            raise refuse("id: takes 4 to 64 hex digits")
    model, at, selector = body.partition("@")
    if at and not selector:
        raise refuse("nothing follows '@'")
    if "@" in selector:
        raise refuse("it has more than one '@'")
    try:
        model = clean_name(model)
        chosen = _clean_selector(selector) if at else None
    except InvalidName as error:
        raise refuse(str(error.data["reason"])) from None
    return Reference(text, model, None, chosen, ancestors, previous, when)


def _clean_selector(selector: str) -> str:
    # An id prefix, `latest`, `best` and `<run>/latest` are no names, yet they select.
    if _HEX.fullmatch(selector) or name_key(selector) in RESERVED:
        return selector
    run, slash, last = selector.rpartition("/")
    if slash and name_key(last) in RESERVED:
        return f"{clean_name(run, reserved=frozenset())}/{last}"
    return clean_name(selector)
