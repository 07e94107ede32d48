"""Eviction: keeps the shared checkouts under `STEMMATA_CACHE_SIZE`, those used longest ago going first.

Never removes one that this process has handed out, nor one that any process did in the last minutes:
somebody may be about to open its files. So the limit may be passed for as long as more is in use.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from stemmata.errors import InvalidArgument
from stemmata.ids import random_hex

VARIABLE = "STEMMATA_CACHE_SIZE"
RECENT = 600.0
"""Seconds after which a checkout that was handed out may go."""

_LEFT_FOR = 3600.0
"""Seconds without a write after which what nobody makes is nobody's: locks may end at a computer's own."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)
_HOME = re.compile(r"[0-9a-f]{64}")
_LEFT = re.compile(r"\.([0-9a-f]{64})\.[0-9a-f]{16}")
_MAX_MANIFEST = 1 << 30
_handed_out: set[Path] = set()
_moving = threading.Lock()


class Checkout(NamedTuple):
    """One shared checkout: its folder, when it was last handed out, its files' bytes."""

    home: Path
    used: float
    size: int


def limit() -> int | None:
    """Bytes that `STEMMATA_CACHE_SIZE` allows ("20GB", "500 MiB", a number); None without one.

    Raises InvalidArgument.
    """
    given = os.environ.get(VARIABLE, "").strip()
    if not given:
        return None
    found = _SIZE.fullmatch(given)
    if found is None:
        raise InvalidArgument(argument=VARIABLE, reason=f"{given!r} is no size such as 20GB")
    power = " kmgtp".index(found[2].lower() or " ")
    try:
        return int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    except OverflowError:
        raise InvalidArgument(argument=VARIABLE, reason="it is more than any disk holds") from None


def note_use(home: Path) -> None:
    """This process hands out `home` now, or is about to."""
    with _moving:
        _handed_out.add(_resolved(home))
    try:
        os.utime(home)
    except OSError:
        pass  # not made yet, or another user's: then its age is that of its making


def _resolved(home: Path) -> Path:
    """`home` by the one name that it has however its cache was spelled; it need not be there yet."""
    return Path(os.path.realpath(home.parent), home.name)


def checkouts(folder: Path) -> list[Checkout]:
    """Those in a cache's folder `checkouts`, the one used longest ago first."""
    found = []
    try:
        homes = [path for path in folder.iterdir() if _HOME.fullmatch(path.name)]
    except OSError:
        return []
    for home in homes:
        try:
            found.append(Checkout(home, home.stat().st_mtime, _size(home)))
        except OSError:
            continue  # removed meanwhile
    return sorted(found, key=lambda each: each.used)


def make_room(folder: Path) -> None:
    """Remove checkouts until the rest is within the limit. Raises InvalidArgument."""
    allowed = limit()
    if allowed is None:
        return
    found = checkouts(folder)
    total = sum(each.size for each in found)
    for each in found:
        if total <= allowed:
            return
        if _remove(each):
            total -= each.size


def sweep(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove what makers that were killed have left there; of `names` alone, if they are given."""
    try:
        found = [(path, named[1]) for path in folder.iterdir() if (named := _LEFT.fullmatch(path.name))]
    except OSError:
        return
    for left, name in found:
        if (names is None or name in names) and _is_old(left):
            _remove_left(left, folder / f".{name}.lock")


def _is_old(left: Path) -> bool:
    try:
        newest = max(path.lstat().st_mtime for path in (left, *left.rglob("*")))
    except OSError:
        return False  # somebody is at it
    return time.time() - newest >= _LEFT_FOR


def _remove_left(left: Path, lock: Path) -> None:
    """Remove it, unless whoever holds the lock makes a checkout of its version."""
    try:
        import fcntl

        held = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (ImportError, FileNotFoundError):
        shutil.rmtree(left, ignore_errors=True)
        return
    except OSError:
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(left, ignore_errors=True)
        fcntl.flock(held, fcntl.LOCK_UN)
    except OSError:
        pass  # somebody else holds it
    finally:
        os.close(held)


def remove_all(folder: Path, names: Collection[str]) -> int:
    """Remove the checkouts with these names: of versions that are gone for good; how many there were."""
    sweep(folder, names)
    done = 0
    try:
        found = [path for path in folder.iterdir() if path.name in names]
    except OSError:
        return 0
    for home in found:
        aside = home.parent / f".{home.name}.{random_hex(8)}"
        try:
            # First out of sight, in one step; who has a file of it open reads on.
            home.rename(aside)
        except OSError as error:
            if error.errno != errno.EXDEV:
                continue  # another process was quicker, or it is another user's
            aside = home  # of a container's image, where it moves nowhere
        shutil.rmtree(aside, ignore_errors=True)
        done += 1
    return done


def _remove(found: Checkout) -> bool:
    home = found.home
    aside = home.parent / f".{home.name}.{random_hex(8)}"
    with _moving:
        if _resolved(home) in _handed_out or time.time() - found.used < RECENT:
            return False
        try:
            # First out of sight, in one step: nobody is handed half a folder.
            home.rename(aside)
            if aside.stat().st_mtime != found.used:
                aside.rename(home)  # handed out in just this moment
                return False
        except OSError:
            return False  # another process was quicker, or it is another user's
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _size(home: Path) -> int:
    """The sum of its files, as noted when they were verified."""
    try:
        with open(home / "manifest.json", "rb") as file:
            noted = msgspec.json.decode(file.read(_MAX_MANIFEST))["files"]
        return sum(int(marks[0]) for marks in noted.values())
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, IndexError, AttributeError):
        return 0
