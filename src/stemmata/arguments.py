"""Arguments: what callers pass, made into what a record and the log can keep. Refuses the rest by name.

Numbers may be any type's that says what it is as a Python number: numpy's and torch's scalars too.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stemmata.errors import InvalidArgument
from stemmata.records import store_number, timestamp

_INT_MAX = 2**63 - 1
_MAX_KEY_BYTES = 1024


class Unset:
    """Says that an argument was not given, where None means something."""


UNSET = Unset()


def text_of(text: object) -> str:
    """`text` as UTF-8 can hold it; half a surrogate pair, as in a file's odd name, becomes '?'."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def require_text(argument: str, text: str) -> str:
    """`text`, which shall be found again letter by letter. Raises InvalidArgument."""
    try:
        text.encode("utf-8")
    except (UnicodeEncodeError, AttributeError):
        raise InvalidArgument(argument=argument, reason=f"{text!r} is no valid text") from None
    return text


def key_of(argument: str, key: object) -> str:
    """A metric's or label's key: any text that can be kept, printed on one line and typed."""
    text = require_text(argument, str(key))
    if not text or text != text.strip() or len(text.encode("utf-8")) > _MAX_KEY_BYTES:
        reason = f"a key is not empty, has no blanks around it and at most {_MAX_KEY_BYTES} bytes"
        raise InvalidArgument(argument=f"{argument}: the key {text[:80]!r}", reason=reason)
    if not text.isprintable():
        raise InvalidArgument(argument=f"{argument}: the key {text!r}", reason="it cannot be printed")
    return text


def is_key(key: object) -> bool:
    """Whether a metric or label may have this key."""
    try:
        key_of("key", key)
    except InvalidArgument:
        return False
    return True


def metrics_of(metrics: Mapping[str, Any]) -> dict[str, float | str]:
    """Metrics as they are stored. Raises InvalidArgument for what is no number."""
    found: dict[str, float | str] = {}
    for key, value in metrics.items():
        name = key_of("metrics", key)
        try:
            if isinstance(value, str | bytes):
                raise TypeError("a text is no number")
            found[name] = store_number(value)
        except OverflowError:
            reason = "it is greater than any floating-point number"
            raise InvalidArgument(argument=f"the metric {name!r}", reason=reason) from None
        except (TypeError, ValueError, RuntimeError):
            # RuntimeError: how torch refuses a tensor of more than one element.
            reason = f"{type(value).__name__} is no number"
            raise InvalidArgument(argument=f"the metric {name!r}", reason=reason) from None
    return found


def labels_of(labels: Mapping[str, Any]) -> dict[str, str | None]:
    """Labels as texts; None stays None."""
    return {key_of("labels", k): None if v is None else text_of(v) for k, v in labels.items()}


def labels_ahead(labels: Mapping[str, Any] | None) -> dict[str, str]:
    """As `labels_of`, of versions that are not there yet: None is no label."""
    return {key: text for key, text in labels_of(labels or {}).items() if text is not None}


def whole_of(argument: str, value: Any) -> int | None:
    """A count or step. Raises InvalidArgument for what is no whole number of 63 bits."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        reason = f"{type(value).__name__} is no whole number"
        raise InvalidArgument(argument=argument, reason=reason) from None
    if not -_INT_MAX <= number <= _INT_MAX:
        raise InvalidArgument(argument=argument, reason="it is beyond 63 bits")
    return number


def finite_of(argument: str, value: Any) -> float | None:
    """An epoch. Raises InvalidArgument for what is no finite number."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidArgument(argument=argument, reason=f"{type(value).__name__} is no finite number")
    return number


def seconds_of(argument: str, value: float | None) -> float | None:
    """A time-out. Raises InvalidArgument for what is no time that can pass."""
    if value is not None and not 0 < value < math.inf:
        raise InvalidArgument(argument=argument, reason=f"{value} is no number of seconds")
    return value


def instant_of(argument: str, moment: datetime) -> str:
    """A stored time; without a zone it is local time. Raises InvalidArgument."""
    try:
        return timestamp(moment.astimezone())
    except (OverflowError, ValueError, OSError):
        raise InvalidArgument(argument=argument, reason="the calendar ends before it") from None
