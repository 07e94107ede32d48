"""Doctor: looks at what stemmata stands on here, and says of each thing what to do about it.

Changes nothing but throw-away files that it makes to see whether it can. Reads no weights: `check` does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from stemmata import heads
from stemmata.catalog.catalog import user_cache_folder
from stemmata.checkouts import eviction
from stemmata.errors import DamagedRepository, OlderCopy, RepositoryNotFound, StemmataError
from stemmata.repository import VARIABLE, Repository
from stemmata.repository import open as open_repository
from stemmata.storage.descriptors import may_write
from stemmata.storage.mounts import has_shared_locks, is_network, mount_of
from stemmata.storage.publish import NoMeans, probe

State = Literal["ok", "warning", "problem"]
_LOW = 5 * 10**9
_AHEAD = timedelta(minutes=5)
_ALLOCATE = ("ext4", "xfs", "btrfs", "nfs4")
"""File systems that set bytes aside without writing them."""
_TRAINING = ("torch", "transformers", "peft", "accelerate", "safetensors", "trl", "datasets")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9.]+)")


class Finding(NamedTuple):
    """One thing looked at: what was found, and what to do (empty where nothing is to be done)."""

    name: str
    state: State
    found: str
    advice: str = ""


def examine(folder: Path) -> list[Finding]:
    """What `folder`, where the repository is or would be, and this Python have to offer. Raises nothing."""
    return [*_python(), *_packages(), *_codecs(), *_repository(folder), *_place(folder), *_cache(folder)]


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < (3, 11):  # noqa: UP036  (a source folder on PYTHONPATH meets any)
        yield Finding("python", "problem", found, "use Python 3.11 or newer")
    else:
        yield Finding("python", "ok", found)


def _packages() -> Iterator[Finding]:
    try:
        required = metadata.requires("stemmata") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            "stemmata", "warning", "not installed, only found", "install it: pip install 'stemmata[hf]'"
        )
        required = []
    floors = {m[1].lower(): m[2] for m in map(_REQUIREMENT.match, required) if m}
    always = [m[1] for m in map(_REQUIREMENT.match, (r for r in required if "extra ==" not in r)) if m]
    for name in [*always, *_TRAINING]:
        floor = floors.get(name.lower())
        wanted = f"{name}>={floor}" if floor else name
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            state: State = "problem" if name in always else "warning"
            why = "" if name in always else " to train or load with it"
            yield Finding(name, state, "not installed", f"pip install '{wanted}'{why}")
            continue
        if floor and _numbers(version) < _numbers(floor):
            advice = f"stemmata supports {floor} and newer: pip install '{wanted}'"
            yield Finding(name, "problem", version, advice)
        else:
            yield Finding(name, "ok", f"{version} (supported: {floor} and newer)" if floor else version)


def _codecs() -> Iterator[Finding]:
    try:
        from stemmata.codecs import native, payloads
    except ImportError:
        return  # a package that is missing was told already
    if native.library is None:
        advice = "saving and reading are several times slower so; with a C compiler, install stemmata again"
        yield Finding("codecs", "warning", f"their inner loops run in numpy: {native.why_not}", advice)
    elif payloads.why_not:
        found = f"their inner loops are compiled, but {payloads.why_not}"
        yield Finding("codecs", "warning", found, "it works, slower: pip install 'zstandard[cffi]'")
    else:
        yield Finding("codecs", "ok", "their inner loops are compiled")


def _numbers(version: str) -> list[int]:
    """The release part of a version, to compare: 2.13.0+cpu is [2, 13, 0]."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return [int(part) for part in found[0].split(".")] if found else []


def _repository(folder: Path) -> Iterator[Finding]:
    try:
        with open_repository(folder) as repository:
            models = repository.models()
            yield Finding("repository", "ok", f"{folder}, models: {len(models)}")
            yield _catalog(repository, folder)
            yield from _clock(repository)
            yield from _newest(repository)
    except RepositoryNotFound:
        if os.environ.get(VARIABLE):
            advice = f"correct {VARIABLE}, or make one there: stemmata init {folder}"
        else:
            advice = "go where it is, name it with --repo, or make one: stemmata init"
        yield Finding("repository", "warning", f"none at {folder}", advice)
    except DamagedRepository as error:
        # Without its stemmata.json too: what else is there is not to be taken for no repository.
        yield Finding("repository", "problem", f"{folder}: {error}", "put it right: stemmata check --repair")
    except (StemmataError, OSError) as error:
        yield Finding("repository", "problem", f"{folder}: {error}", "see what is damaged: stemmata check")


def _newest(repository: Repository) -> Iterator[Finding]:
    """Of an older copy each write is refused, and nothing else tells."""
    session = repository.session
    try:
        heads.require_newest(session.storage, session.identity, session.catalog.position)
    except OlderCopy as error:
        advice = "bring the newer files back, or go on from this copy: stemmata check --accept-older"
        yield Finding("log", "problem", error.what.format(**error.data), advice)


def _clock(repository: Repository) -> Iterator[Finding]:
    """Times never run backwards: one writer whose clock is ahead moves those of all that follow."""
    newest = repository.session.catalog.position.effective
    try:
        ahead = datetime.fromisoformat(newest) - datetime.now(UTC) if newest else timedelta(0)
    except ValueError:
        return
    if ahead > _AHEAD:
        found = f"the newest entry is of {newest[:16].replace('T', ' ')} UTC, {_long(ahead)} ahead"
        advice = (
            "set right the clock that is wrong, this computer's or the writer's; until that time is here,"
        )
        advice += " what is written has it, and `--at` cannot tell one from the other"
        yield Finding("clock", "warning", found, advice)


def _long(ahead: timedelta) -> str:
    count, unit = (ahead.days, "day") if ahead.days else (ahead.seconds // 60, "minute")
    return f"{count:,} {unit}{'s' if count != 1 else ''}"


def _catalog(repository: Repository, folder: Path) -> Finding:
    file = repository.session.catalog.file
    if file is None:
        advice = "every command reads the whole log: make the cache folder writable, or set STEMMATA_CACHE"
        if not has_shared_locks(folder):
            advice = (
                "locks are local to this computer here: set STEMMATA_CACHE to a folder on a disk of its own"
            )
        return Finding("catalog", "warning", "in memory alone", advice)
    if folder.absolute() not in file.absolute().parents:
        return Finding("catalog", "ok", f"{file}, as the repository's own cache cannot be written")
    return Finding("catalog", "ok", f"up to date, {file}")


def _place(folder: Path) -> Iterator[Finding]:
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    temp = place / "tmp" if (place / "stemmata.json").is_file() else place
    try:
        temp.mkdir(exist_ok=True)
        means = probe(temp)
    except NoMeans:
        advice = "keep the repository on another file system: here two writers could replace each other"
        yield Finding("hard links", "problem", f"neither links nor a safe rename in {place}", advice)
    except OSError as error:
        advice = "it can be read; to save, get the right to write there or name another folder"
        yield Finding("writable", "warning", f"{place}: {error.strerror or error}", advice)
    else:
        yield Finding("writable", "ok", str(place))
        yield Finding("hard links", "ok", "there" if means.value == "link" else "none; a safe rename serves")
    mount = mount_of(place)
    if is_network(mount):
        where = "a network drive: a disk of this computer is faster, and a save waits for each sync"
        yield Finding("file system", "ok", f"{mount.kind}, {where}")
    elif mount.kind:
        yield Finding("file system", "ok", mount.kind)
    yield from _shared(folder)
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return
    advice = "" if free >= _LOW else "make room, or keep the repository elsewhere: a model may not fit"
    yield Finding("free space", "warning" if advice else "ok", _size(free), advice)
    # Elsewhere, as in memory, to ask for bytes may be to use them.
    if mount.kind in _ALLOCATE and free >= 2 * _LOW and _meets_quota(place, _LOW):
        found = f"less than {_size(_LOW)} of them are for this user or group"
        yield Finding(
            "quota", "warning", found, "see quota -s; free some space of yours there, or ask for more"
        )


def _meets_quota(place: Path, size: int) -> bool:
    """Whether a quota keeps this user from `size` bytes there. Asks for them in a file without a name, and
    lets them go at once; False where that cannot be told, as on most network drives."""
    allocate = (
        getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None) if sys.platform == "linux" else None
    )
    if allocate is None:
        return False
    allocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            # The system's call, not posix_fallocate: that one writes where the file system cannot do it.
            ctypes.set_errno(0)
            return bool(allocate(file.fileno(), 0, 0, size)) and ctypes.get_errno() == errno.EDQUOT
    except OSError as error:
        return error.errno == errno.EDQUOT


def _shared(folder: Path) -> Iterator[Finding]:
    """Folders that another user of the group made with a umask that keeps the group out."""
    if not (folder / "stemmata.json").is_file():
        return
    folders = [
        folder,
        *(folder / name for name in ("log", "tmp", "bundles")),
        *folder.glob("checkpoints"),
        *folder.glob("checkpoints/*"),
        *folder.glob("packs"),
        *folder.glob("packs/*"),
    ]
    closed = [each for each in folders if each.is_dir() and not may_write(each)]
    if closed:
        named = ", ".join(str(each.relative_to(folder)) for each in closed[:3])
        found = f"{len(closed)} folders there cannot be written by this user: {named}"
        mend = f"chmod -R g+rwX {shlex.quote(str(folder))}"
        advice = f"whoever made them: {mend}; and umask 002 for all who write there"
        yield Finding("shared", "warning", found, advice)


def _cache(folder: Path) -> Iterator[Finding]:
    caches = [folder / "cache"]
    try:
        # One folder per repository whose own cache cannot be written.
        caches += [path.parent for path in user_cache_folder().glob("*/checkouts")]
    except (OSError, RuntimeError):
        pass  # no home, or not to be read
    found = [each for cache in caches for each in eviction.checkouts(cache / "checkouts")]
    said = f"{_size(sum(each.size for each in found))} in cached checkouts: {len(found)}"
    try:
        limit = eviction.limit()
    except StemmataError as error:
        yield Finding("cache", "problem", str(error), f"write {eviction.VARIABLE} as 50GB, or unset it")
        return
    advice = f"no limit is set; {eviction.VARIABLE}=50GB would" if limit is None and found else ""
    yield Finding("cache", "ok", said if limit is None else f"{said}, limit {_size(limit)}", advice)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"
