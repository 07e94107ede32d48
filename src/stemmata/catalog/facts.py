"""Facts: values by which versions are found. Owns how a value of a record becomes one (see `schema`)."""

from __future__ import annotations

import math
from typing import TypeAlias

import msgspec

from stemmata.records import Stored, load_value

Fact: TypeAlias = tuple[float | int | None, str | bytes | None]
"""A value as (num, text): see the schema."""
NAN = b"nan"
"""In place of a text, and equal to none: a value may well be the word."""

_json = msgspec.json.Encoder()
_INT_MAX = 2**63 - 1
_EXACT = 2**53
"""Beyond, a float is not every integer: these stay what they are."""


def fact_of(value: Stored) -> Fact:
    """How a stored value is kept for searching."""
    if isinstance(value, str):
        if not value.startswith("~"):
            return None, value
        try:
            loaded = load_value(value)
        except ValueError:
            return None, value  # '~int:' with no digits behind it
    else:
        loaded = value
    if loaded is None or isinstance(loaded, str):
        return None, loaded
    if isinstance(loaded, bool):
        return float(loaded), "true" if loaded else "false"
    if isinstance(loaded, list):
        return None, dumps(value)
    if isinstance(loaded, float):
        return (None, NAN) if math.isnan(loaded) else (loaded, None)
    if -_INT_MAX <= loaded <= _INT_MAX:
        return (float(loaded) if -_EXACT <= loaded <= _EXACT else loaded), None
    try:
        return float(loaded), str(loaded)
    except (OverflowError, ValueError):
        return None, str(value)  # more digits than Python turns into text


def metric_of(value: float | str) -> Fact:
    """As `fact_of`; a text that is no tagged number counts as NaN."""
    if type(value) is float:
        return value, None  # JSON has neither NaN nor infinity
    num, text = fact_of(value)
    return (float(num), text) if num is not None else (None, NAN)


def encode(value: object) -> bytes:
    return _json.encode(value)


def dumps(value: object) -> str:
    return encode(value).decode("utf-8")
