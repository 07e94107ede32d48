"""Failure: the root of the tree of errors. Owns how a message is made of templates and data."""

from __future__ import annotations

import string
from typing import ClassVar


class StemmataError(Exception):
    """Root of the tree. `data` holds the fields the message was made from."""

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    what: ClassVar[str] = "{reason}"
    untouched: ClassVar[str] = ""
    next_step: ClassVar[str] = ""
    unsaid: ClassVar[frozenset[str]] = frozenset()
    """Fields for programs, which no message holds."""

    def __init__(self, **data: object) -> None:
        wanted = type(self).fields() | self.unsaid
        if wanted != set(data):
            raise TypeError(f"{type(self).__name__} takes {sorted(wanted)}, got {sorted(data)}")
        self.data = data
        parts = [p.format(**data) for p in (self.what, self.untouched, self.next_step) if p]
        super().__init__("; ".join(p for p in parts if p))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.data))

    @classmethod
    def fields(cls) -> set[str]:
        """Names of the data fields that this class's templates use."""
        text = cls.what + cls.untouched + cls.next_step
        return {name.split(".")[0].split("[")[0] for _, name, _, _ in string.Formatter().parse(text) if name}


def _rebuild(cls: type[StemmataError], data: dict[str, object]) -> StemmataError:
    return cls(**data)
