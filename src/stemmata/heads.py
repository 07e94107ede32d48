"""Heads: how far this machine has seen the logs of its repositories go. Owns what is refused because of it.

A folder that was brought back from an older backup is sound in itself, and writing into it would make a
second history of what happened since. So each commit leaves the number and the hash of its entry in the
user's cache folder, by repository and place; a log that has not got that far, or has another entry there, may
be read and not written, until somebody says that this is meant. The memory may vanish at any time: it is a
reason to ask, never evidence of what a repository holds (I8).
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from stemmata.catalog.catalog import user_cache_folder
from stemmata.errors import DamagedLog, OlderCopy
from stemmata.ids import Digest
from stemmata.log.entries import Position
from stemmata.log.identity import Identity
from stemmata.log.reader import exists, fetch
from stemmata.storage.base import Storage

_FOLDER = "heads"
_LONGEST = 200
_MOST = 1000
"""Repositories that are remembered."""


def remember(storage: Storage, identity: Identity, here: Position) -> None:
    """Note that the log reached `here`. Best effort."""
    file = _file(storage, identity.repository)
    if file is None:
        return
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            _make_room(file.parent)
        fresh = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}")
        fresh.write_text(f"{here.n} {here.hash.hex}\n", encoding="ascii")
        fresh.replace(file)


def require_newest(storage: Storage, identity: Identity, here: Position) -> None:
    """Raise OlderCopy if the log, which ends `here`, is not the one that this machine has written to, and
    DamagedLog if what was written there is still being brought back: its end is there, the next entry not."""
    seen = last_seen(storage, identity.repository)
    if seen is None:
        return
    n, digest = seen
    # The entry itself is asked for where the log is shorter: another writer may have come since `here`.
    found = here.hash if here.n == n else _hash_of(storage, n)
    if found is None:
        raise OlderCopy(where=storage.where, found=here.n, seen=n, reason="it is not there")
    if found != digest:
        raise OlderCopy(where=storage.where, found=here.n, seen=n, reason="it is another one now")
    # Files are copied back in any order. If the next entry is there, another writer has come since `here`.
    if here.n < n and not exists(storage, here.n + 1):
        raise DamagedLog(entry=here.n + 1, reason=f"it is missing, but entry {n} is there")


def forget(storage: Storage, identity: Identity) -> None:
    """Take the log as it is from now on: whoever asks for this means to go on from an older copy."""
    file = _file(storage, identity.repository)
    if file is not None:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _make_room(folder: Path) -> None:
    """Forget the repositories that were not written for longest."""
    known = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for file in known[: max(0, len(known) + 1 - _MOST)]:
        file.unlink(missing_ok=True)


def _hash_of(storage: Storage, n: int) -> Digest | None:
    data = fetch(storage, n)
    return Digest.of(data) if data is not None else None


def last_seen(storage: Storage, repository: str) -> tuple[int, Digest] | None:
    """Number and hash of the last entry that this machine committed there, if it knows of any."""
    file = _file(storage, repository)
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            n, digest = opened.read(_LONGEST).decode("ascii").split()
        return int(n), Digest.parse(digest)
    except (OSError, ValueError):
        return None


def _file(storage: Storage, repository: str) -> Path | None:
    """None for a repository that ends with its process, and for a user without a home."""
    if storage.where.startswith("memory"):
        return None
    where = str(Path(storage.where).resolve()) if storage.cache_folder is not None else storage.where
    name = f"{repository}-{blake3(os.fsencode(where)).hexdigest(8)}"
    try:
        return user_cache_folder() / _FOLDER / name
    except RuntimeError:
        return None
