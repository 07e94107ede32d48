"""Pages: new memory, in pages of the size that costs least on this machine. Owns what is asked of the kernel.

Huge pages are cleared faster than as many small ones. But a guest that tells its host which memory is free
tells it in blocks of that very size, and the host takes them: each huge page has to be fetched back then,
which takes many times longer, where small pages mostly come out of memory that the guest has kept.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_ADVISED = 4 << 20
"""Bytes from which numpy asks for huge pages by itself."""
_BALLOONS = Path("/sys/bus/virtio/drivers/virtio_balloon")
_PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)
"""Shared memory, Python's default, has no huge pages; where there is no choice it does as well."""
_AWAY = 16
"""Bytes from a page's begin to that of `small` memory."""
_REPORTING = 5
"""VIRTIO_BALLOON_F_REPORTING: the bit of a balloon's features that says so."""


def fresh(size: int) -> mmap.mmap:
    """Memory of `size` bytes, all zero, of this process alone. What is not touched takes none. Raises
    MemoryError."""
    return _new(size, "MADV_HUGEPAGE" if huge_pages_pay() else "MADV_NOHUGEPAGE")


def small(size: int) -> memoryview:
    """As `fresh`, in small pages: for memory that is worked in again and again.

    It begins a little way into a page, and what is `fresh` begins with one: a processor that copies between
    places whose addresses have the same last twelve bits waits for itself.
    """
    return memoryview(_new(_AWAY + size, "MADV_NOHUGEPAGE"))[_AWAY : _AWAY + size]


def _new(size: int, advice: str) -> mmap.mmap:
    try:
        made = mmap.mmap(-1, size, **_PRIVATE)
    except OSError as error:
        raise MemoryError(f"{size} bytes") from error  # what fails is no file
    if hasattr(mmap, advice):
        with contextlib.suppress(OSError):  # a kernel without huge pages: as good, a little slower
            made.madvise(getattr(mmap, advice))
    return made


def fresh_array(size: int) -> np.ndarray:
    """uint8[size], holding anything, in memory of its own."""
    import numpy as np

    if size < _ADVISED or huge_pages_pay():
        return np.empty(size, np.uint8)
    return np.frombuffer(fresh(size), np.uint8)


@functools.cache
def huge_pages_pay() -> bool:
    """False in a guest whose host takes back what is free."""
    try:
        return not any(_reports(balloon / "features") for balloon in _BALLOONS.glob("virtio*"))
    except OSError:
        return True


def _reports(features: Path) -> bool:
    """`features`: a character for each bit, the lowest first."""
    try:
        return features.read_text("ascii")[_REPORTING : _REPORTING + 1] == "1"
    except (OSError, ValueError):
        return False
