"""Failures: what an operating system's error means to a person. Owns that table."""

from __future__ import annotations

import errno
import os

from stemmata.errors import QuotaReached, StorageFailed, StorageFull, StorageProblem, StorageReadOnly

_QUOTA = getattr(errno, "EDQUOT", None)  # Windows has none
_FULL = frozenset({errno.ENOSPC, _QUOTA})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def is_full(error: OSError) -> bool:
    """Whether the disk, or the share of it that its owner allows, is used up."""
    return error.errno in _FULL


def write_failure(error: OSError, where: str) -> StorageProblem:
    """The error to raise for a write below `where` that failed with `error`."""
    if error.errno is not None and error.errno == _QUOTA:
        return QuotaReached(where=where)
    if is_full(error):
        return StorageFull(where=where)
    if error.errno in _READ_ONLY:
        return StorageReadOnly(where=where, reason=reason_of(error))
    return StorageFailed(where=where, reason=reason_of(error))


def read_failure(error: OSError, where: str) -> StorageProblem:
    """The error to raise for a read below `where` that failed with `error`."""
    return StorageFailed(where=where, reason=reason_of(error))


def reason_of(error: OSError) -> str:
    """The system's own words, without the path: the message names the place already."""
    if error.errno is None:
        return str(error) or type(error).__name__
    if error.errno == errno.EXDEV:
        return (
            "its folders lie on several disks; a link may stand for the whole repository, not for one of them"
        )
    return error.strerror or os.strerror(error.errno)
