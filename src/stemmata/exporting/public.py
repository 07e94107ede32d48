"""Public: values as a card may show them. Owns what is a path of a machine; its last name is left."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

_ABOVE = r"(?:\.[\\/])*\.\.[\\/]"
_NO_HOST = r"[A-Za-z][\w+.-]{0,30}:/{3,}|file:/*"
"""An address of a file of this machine: `file:/x`, `zip:///x`."""
_WHOLE = re.compile(rf"{_NO_HOST}|~[\w.-]*[\\/]|/+(?=[^/]+/)|[A-Za-z]:[\\/]|\\\\(?=\w)|{_ABOVE}")
"""How a text begins that is nothing but a path; spaces may be in it."""
_ANOTHER = re.compile(
    rf"([,;|\s])(?={_NO_HOST}|~[\w.-]*[\\/]|/+(?=[^\s/]+/)|[A-Za-z]:[\\/]|\\\\(?=\w)|{_ABOVE})"
)
"""Where, behind a separator, another path begins in such a text: then it is several."""
# Within other words one name after a slash says nothing of a machine, and a path ends where a space is. Two
# slashes after a colon are an address's, one before a word and `>` a tag's, and what stands before a slash is
# a path from somewhere below; but for the letter of an option: `-I/usr/include`.
_WITHIN = re.compile(
    rf"(?:(?<![\w.~/\\-])(?:{_NO_HOST}|~[\w.-]*[\\/]|/(?!/|\w+>)(?=[^\s/]+/)|[A-Za-z]:\\|\\\\(?=\w)|{_ABOVE})"
    r"|(?<![\w.~/\\:-])//+(?=[^\s/]+/)|(?<=\s-[A-Za-z])/+(?=[^\s/]+/))"
    r"[^\s\"'`,;|<>()\[\]{}]*"
)


def public(value: object) -> object:
    """The value with the last name in place of each path of a machine, in lists and mappings too."""
    if isinstance(value, str):
        return public_text(value)
    if isinstance(value, Mapping):
        return {public_text(str(key)): public(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [public(each) for each in value]
    return value


def public_text(text: str) -> str:
    """As `public`; a path from the folder that somebody worked in says nothing of the machine, and stays."""
    whole = text.strip()
    if _WHOLE.match(whole):
        # Each of several to where the next one begins: spaces may be in it, and what they part is as private.
        begins = [0, *(found.end(1) for found in _ANOTHER.finditer(whole)), len(whole)]
        return "".join(_shown(whole[a:b]) for a, b in itertools.pairwise(begins))
    return _WITHIN.sub(lambda found: last_name(found[0]), text)


def _shown(part: str) -> str:
    """One of several paths, with what parts it from the next."""
    path = part.rstrip(",;| \t\n")
    return last_name(path) + part[len(path) :]


def last_name(path: str) -> str:
    """Of a path as any system writes it; "" for a root, or for what only leads above."""
    name = re.split(r"[\\/]", path.rstrip("\\/"))[-1]
    return "" if name in ("..", "~", "file:") or re.fullmatch(r"[A-Za-z]:|~.*", name) else name
