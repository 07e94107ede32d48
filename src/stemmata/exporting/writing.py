"""Writing: values as YAML, Markdown and Python. Owns the escaping: a name may be anything anybody typed."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

_PLAIN_YAML = re.compile(r"[A-Za-z][A-Za-z0-9_./+-]*")
_YAML_WORDS = frozenset(["true", "false", "yes", "no", "on", "off", "null", "none", "y", "n", "nan", "inf"])
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&#!$])")


def yaml_scalar(value: str | int | float | bool) -> str:
    """A scalar that YAML 1.1 and 1.2 read back as the same; a number must be finite."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a card holds finite numbers")
        text = repr(value)
        # YAML 1.1 takes 1e-05 for a text: it wants the point.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, int):
        return str(value)
    if _PLAIN_YAML.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    return '"' + "".join(map(_yaml_character, value)) + '"'


def _yaml_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    number = ord(character)
    if 0xD800 <= number <= 0xDFFF:
        return "\ufffd"
    if number > 0xFFFF:
        return character if character.isprintable() else f"\\U{number:08x}"
    return character if character.isprintable() and number < 0xFFF0 else f"\\u{number:04x}"


def yaml_lines(key: str, value: object, indent: int = 0) -> list[str]:
    """`key: value` of nested mappings, lists and scalars, block style."""
    pad = "  " * indent
    if isinstance(value, Mapping):
        lines = [f"{pad}{key}:"]
        for name, inner in value.items():
            lines += yaml_lines(str(name), inner, indent + 1)
        return lines
    if isinstance(value, list | tuple):
        lines = [f"{pad}{key}:"]
        for item in value:
            lines += _yaml_item(item, indent)
        return lines
    assert isinstance(value, str | int | float | bool)
    return [f"{pad}{key}: {yaml_scalar(value)}"]


def _yaml_item(item: object, indent: int) -> list[str]:
    pad = "  " * indent
    if not isinstance(item, Mapping):
        assert isinstance(item, str | int | float | bool)
        return [f"{pad}- {yaml_scalar(item)}"]
    lines: list[str] = []
    for name, inner in item.items():
        lines += yaml_lines(str(name), inner, indent + 1)
    lines[0] = f"{pad}- {lines[0].lstrip()}"
    return lines


def one_line(text: str) -> str:
    """Without line ends and characters that nobody sees: they may turn what stands around them."""
    seen = "".join(" " if c.isspace() else c for c in text if c.isspace() or _is_seen(c))
    return " ".join(seen.split())


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")


def words(text: str) -> str:
    """Text in Markdown that is nothing but text, on one line."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def code(text: str) -> str:
    """A code span; "" for nothing."""
    shown = one_line(text)
    if not shown:
        return ""
    fence = "`" * (max(map(len, re.findall(r"`+", shown)), default=0) + 1)
    edge = " " if shown[0] == "`" or shown[-1] == "`" else ""
    # In a table the bar ends the cell, in code too.
    return f"{fence}{edge}{shown}{edge}{fence}".replace("|", r"\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; cells are Markdown already."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def number(value: float) -> str:
    """A number as a card shows it: six digits that count."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def python(value: object) -> str:
    """A Python literal of plain values, all ASCII."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{python(str(k))}: {python(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(python, value)) + "]"
    if isinstance(value, str):
        written = ascii(value)
        inner = written[1:-1].replace("\\'", "'") if written[0] == "'" else written[1:-1]
        # Double quotes, as code is mostly formatted.
        return '"' + inner.replace('"', '\\"') + '"'
    return ascii(value)


def remark(text: str) -> str:
    """Text for a comment or docstring of Python: one line, ASCII, ending no string."""
    shown = one_line(text).replace("\\", "/").replace('"', "'")
    return shown.encode("ascii", "replace").decode("ascii")
