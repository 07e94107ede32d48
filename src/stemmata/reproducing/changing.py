"""Changing: training arguments that a repetition has other values for. Owns which names there are, and what a
text means as a value of them.

An option of the command is changed in the command line, a training argument where the script makes its
TrainingArguments; one that is both, in both places.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stemmata.capture import MASK, looks_secret
from stemmata.capturing.reading import Captured
from stemmata.errors import InvalidArgument
from stemmata.reproducing.commands import Line
from stemmata.reproducing.options import NOT_RECORDED, text_of, with_option
from stemmata.reproducing.problems import UnknownSetting
from stemmata.version import Version

_NEAR, _SHOWN = 0.5, 5
_FIXED = ("output_dir", "logging_dir")
"""Arguments that say where, not what: the work folder decides."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A command line with other options, and training arguments with other values."""

    argv: tuple[str, ...]
    arguments: Mapping[str, Any]
    words: str
    """What is changed: `learning_rate=1e-05`; a secret is masked."""
    secrets: Sequence[str] = ()


def change(
    version: Version, captured: Captured, argv: tuple[str, ...], wanted: Mapping[str, object]
) -> Changed:
    """Raises UnknownSetting, InvalidArgument."""
    known = dict(captured.training_arguments or {})
    arguments: dict[str, Any] = {}
    told: dict[str, object] = {}
    for given, value in wanted.items():
        name = given.replace("-", "_")
        places = Line.parse(argv).options().get(name, [])
        if name in _FIXED:
            raise InvalidArgument(argument=given, reason="what is written goes into the work folder")
        if name in known:
            arguments[name] = value_of(name, known[name], value)
        elif not places:
            raise UnknownSetting(name=given, version=_named(version), hint=_hint(name, known, argv))
        told[name] = arguments.get(name, value)
        if places:
            recorded = known.get(name, NOT_RECORDED)
            argv = tuple(with_option(argv, name, told[name], recorded))
    secrets = [v for name, v in told.items() if looks_secret(name) and isinstance(v, str) and v]
    words = (f"{name}={MASK if looks_secret(name) else text_of(value)}" for name, value in told.items())
    return Changed(argv, arguments, ", ".join(words), secrets)


def value_of(name: str, recorded: object, given: object) -> Any:
    """`given` as a value of the type that was recorded. Raises InvalidArgument."""
    if not isinstance(given, str):
        return given
    if isinstance(recorded, str) and recorded != MASK:
        return given
    value = _literal(given)
    kinds: tuple[type, ...] = ()
    if isinstance(recorded, bool):
        kinds, word = (bool,), "true or false"
    elif isinstance(recorded, int):
        kinds, word = (int,), "a whole number"
    elif isinstance(recorded, float):
        kinds, word = (int, float), "a number"
    if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        raise InvalidArgument(argument=name, reason=f"{given!r} is not {word}; it was {recorded!r}")
    return float(value) if isinstance(recorded, float) else value


def _literal(text: str) -> Any:
    spoken = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in spoken:
        return spoken[text.lower()]
    for read in (int, float, json.loads):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _hint(name: str, known: Mapping[str, object], argv: tuple[str, ...]) -> str:
    names = sorted({*known, *Line.parse(argv).options()})
    near = difflib.get_close_matches(name, names, n=_SHOWN, cutoff=_NEAR)
    near += [n for n in names if name in n and n not in near][: _SHOWN - len(near)]
    if near:
        return f"it has {', '.join(near)}"
    if not names:
        return "no training arguments were captured, and its command has no options"
    return "stemmata show REF --script lists its arguments"


def _named(version: Version) -> str:
    return f"{version.model}@{version.name}"
