"""What can be wrong with stored bytes, before it is known whose bytes they are.

The inner codecs raise these; `translated` turns them into the project's errors, which name the
object and its pack. Nothing outside this package sees a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stemmata.errors import DamagedObject, HostileData, NewerFormat


class Fault(Exception):
    """Root of the three; its text is the reason."""


class DamagedFault(Fault):
    """The bytes contradict themselves or their checksum."""


class HostileFault(Fault):
    """A count or a size is beyond FORMAT.md's limits."""


class NewerFault(Fault):
    """A layout, dtype or codec that this release does not know."""


@contextmanager
def translated(digest: str, where: str) -> Iterator[None]:
    """Raise DamagedObject, HostileData or NewerFormat for a fault. `where` is the pack's name."""
    try:
        yield
    except DamagedFault as fault:
        raise DamagedObject(digest=digest, pack=where, reason=str(fault)) from None
    except HostileFault as fault:
        raise HostileData(where=f"object {digest} in pack {where}", reason=str(fault)) from None
    except NewerFault as fault:
        raise NewerFormat(where=f"object {digest} in pack {where}", reason=str(fault)) from None
