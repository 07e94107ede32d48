"""Options: other values for options of a command line. Owns which of its words are an option's own.

An option has the words up to the next one: `--layers 1 2 3`. A flag has none, and is left away where it is to
be false. What follows may be arguments of the command instead; where the words do not tell, it is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from stemmata.errors import InvalidArgument
from stemmata.reproducing.commands import Line, is_number

_SPOKEN = frozenset(("true", "false", "yes", "no", "on", "off", "0", "1", "t", "f", "y", "n"))
_PATH = re.compile(r".*(?:/.*|\.[A-Za-z]\w{0,6})")


class _NotRecorded:
    """In place of a recorded value: the option is no training argument."""


NOT_RECORDED = _NotRecorded()


def with_option(argv: Sequence[str], name: str, value: object, recorded: object = NOT_RECORDED) -> list[str]:
    """A command line whose option has another value. `recorded`: the value of the training argument of that
    name. Raises InvalidArgument where it is unclear which words that changes."""
    words = list(argv)
    first, *others = Line.parse(argv).options()[name]
    value = _value(value)
    if others and isinstance(value, list):
        raise _unclear(name, f"{argv[first]} stands there {len(others) + 1} times, and a list is given")
    for place in reversed(others):
        # Of several the last one counts, or all together do: one is left.
        del words[place : place + 1 + _own(words, place, name, value, recorded)]
    behind = words[first + 1 : first + 1 + _own(words, first, name, value, recorded)]
    words[first : first + 1 + len(behind)] = _written(words[first], behind, name, value, recorded)
    return words


def text_of(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(value: object) -> object:
    """A text that is a list in JSON is a list."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _own(words: Sequence[str], place: int, name: str, value: object, recorded: object) -> int:
    """How many words behind an option are its values."""
    behind = _behind(words, place)
    if not behind or "=" in words[place]:
        return 0
    if _is_truth(value):
        if behind[0].lower() in _SPOKEN:
            return 1
        if isinstance(recorded, bool):
            return 0  # a flag, and an argument of the command
        raise _unclear(name, f"whether {behind[0]} is its value cannot be told")
    if behind[0].startswith(("[", "{")):
        return 1
    if isinstance(value, list) or isinstance(recorded, list):
        return len(behind)
    if isinstance(recorded, int | float | str):
        return 1
    if is_number(behind[0]):
        return next((n for n, word in enumerate(behind) if not is_number(word)), len(behind))
    if len({_PATH.fullmatch(word) is None for word in behind}) > 1:
        said = f"which of {' '.join(behind)} are its values cannot be told; give all of these as a list"
        raise _unclear(name, f"{said}: --set '{name}={json.dumps([text_of(value), *behind[1:]])}'")
    return len(behind)


def _behind(words: Sequence[str], place: int) -> list[str]:
    end = place + 1
    while end < len(words) and (not words[end].startswith("-") or is_number(words[end])):
        end += 1
    return list(words[place + 1 : end])


def _written(word: str, behind: Sequence[str], name: str, value: object, recorded: object) -> list[str]:
    """The option with its value, in place of its words."""
    head, equals, old = word.partition("=")
    old = old if equals else behind[0] if behind else ""
    if isinstance(value, list) and not old.startswith("["):
        values = [text_of(each) for each in value]
        if not values or (equals and len(values) > 1):
            raise _unclear(name, f"how {word} would name {len(values)} values cannot be told")
        return [f"{head}={values[0]}"] if equals else [word, *values]
    text = str(value) if isinstance(value, bool) and old in ("True", "False") else text_of(value)
    if equals:
        return [f"{head}={text}"]
    if not behind and _is_truth(value):
        return [word] if text.lower() == "true" else []
    if not behind and (recorded is NOT_RECORDED or isinstance(recorded, bool)):
        raise _unclear(name, f"{word} stands there without a value: it can be true or false")
    return [word, text]


def _is_truth(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false"))


def _unclear(name: str, reason: str) -> InvalidArgument:
    return InvalidArgument(argument=name, reason=reason)
