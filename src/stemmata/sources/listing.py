"""Listing: what a save would take. Owns links, special files and names; opens no file but those of macOS."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from stemmata.errors import LinkEscapes, SourceChanged, SourceMissing, UnsafePath
from stemmata.seen import marks_of
from stemmata.sources.files import SourceFile, shown, unsupported
from stemmata.sources.rules import Rules, is_repository
from stemmata.storage.failures import reason_of
from stemmata.trees import MAX_FILES, check_path

_MAX_DEPTH = 200
_TIMES = 5
"""That a source is listed from which something goes meanwhile."""
_MAX_BYTES = 16 << 40
"""Of a file. The list of the pieces of a longer one, which may be a hole, would be too long for a tree."""


class Listing(msgspec.Struct):
    """What lies in a source."""

    root: Path
    """The folder, without links in its own path; that of the file if a single file is saved."""
    files: list[SourceFile] = msgspec.field(default_factory=list)
    empty_folders: list[str] = msgspec.field(default_factory=list)
    left_out: list[tuple[str, str]] = msgspec.field(default_factory=list)


class _Vanished(Exception):
    """Something was removed between its listing and the look at it."""


def list_source(path: Path, rules: Rules) -> Listing:
    """List `path`. Raises SourceMissing, SourceChanged, LinkEscapes, UnsupportedFile."""
    for _ in range(_TIMES):
        # What was there a moment ago may be on its way back, as a file that is written anew.
        with suppress(_Vanished):
            return _list_once(path, rules)
    raise SourceChanged(path=shown(path))


def _list_once(path: Path, rules: Rules) -> Listing:
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise SourceMissing(path=shown(path)) from None
    except OSError as error:
        raise unsupported(path, reason_of(error)) from None
    # The name that was typed may be a link: whoever typed it meant what it points to.
    real = path.resolve()
    if stat.S_ISDIR(about.st_mode):
        if is_repository(real):
            # A save would change it while reading it.
            raise unsupported(path, "it is a stemmata repository; copy it as any folder is copied")
        found = Listing(real)
        _Walk(found, rules).folder(real, "", False, ((about.st_dev, about.st_ino),))
    else:
        found = Listing(real.parent)
        _Walk(found, rules).entry(real, path.name, False, ())
    found.files.sort(key=lambda f: f.path.encode())
    found.empty_folders.sort(key=str.encode)
    found.left_out.sort()
    return found


class _Walk:
    """One walk through a source. `above` holds (device, inode) of the folders that lead here."""

    def __init__(self, found: Listing, rules: Rules) -> None:
        self._found, self._rules = found, rules
        self._count = 0
        """Of files and of visits of folders: by links, a few folders can be visited without end."""

    def folder(self, real: Path, path: str, only_included: bool, above: tuple[tuple[int, int], ...]) -> bool:
        """List a folder; whether anything of it is taken."""
        if len(above) > _MAX_DEPTH:
            raise unsupported(real, f"it lies more than {_MAX_DEPTH} folders deep")
        try:
            with os.scandir(real) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise _Vanished() from None
            raise unsupported(real, f"it cannot be listed: {reason_of(error)}") from None
        taken = False
        for name in names:
            taken |= self.entry(real / name, f"{path}/{name}" if path else name, only_included, above)
        if path and not taken and not only_included:
            self._found.empty_folders.append(_checked(path, real))
            return True
        return taken

    def entry(self, real: Path, path: str, only_included: bool, above: tuple[tuple[int, int], ...]) -> bool:
        """List one name; whether anything of it is taken.

        `only_included`: it lies in a folder that is left out but for what an `include` names.
        """
        about, is_link, problem = _look(real)
        is_folder = about is not None and stat.S_ISDIR(about.st_mode)
        is_plain = about is not None and stat.S_ISREG(about.st_mode) and not is_link
        reason = self._rules.reason_to_leave(path, real, is_folder, is_plain)
        if reason is not None:
            below = is_folder and self._rules.may_include_below(path)
            self._found.left_out.append((shown(path), f"{reason} (in part)" if below else reason))
            if not below:
                return False
        only = reason is not None or (only_included and not self._rules.includes(path))
        if only and not is_folder:
            return False
        if about is None and not problem:
            raise _Vanished()
        if about is None:
            raise unsupported(real, problem)
        named = real
        if is_link:
            real = self._inside(real)
        if not is_folder:
            self._take(real, path, about)
            return True
        key = (about.st_dev, about.st_ino)
        if key in above:
            raise unsupported(named, "it is a link that leads back to a folder that it lies in")
        self._one_more()
        return self.folder(real, path, only, (*above, key))

    def _inside(self, link: Path) -> Path:
        """What a link points to; refused when that lies outside the source."""
        target, root = link.resolve(), self._found.root
        if root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs":
            return target  # the cache of the hub: huggingface_hub keeps each file once, under its digest
        if not target.is_relative_to(root):
            raise LinkEscapes(path=shown(link), target=shown(target))
        return target

    def _take(self, real: Path, path: str, about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            raise unsupported(real, f"it is {_kind(about.st_mode)}")
        self._one_more()
        if about.st_size > _MAX_BYTES:
            raise unsupported(real, f"it is longer than {_MAX_BYTES >> 40} TiB")
        executable = os.name == "posix" and bool(about.st_mode & stat.S_IXUSR)
        size = about.st_size
        self._found.files.append(SourceFile(_checked(path, real), real, size, executable, marks_of(about)))

    def _one_more(self) -> None:
        self._count += 1
        if self._count > MAX_FILES:
            raise unsupported(self._found.root, f"it holds more than {MAX_FILES} files and folders")


def _look(path: Path) -> tuple[os.stat_result | None, bool, str]:
    """What a name points to, or None with the problem ("" where it is gone), and whether it is a link."""
    is_link = False
    try:
        is_link = path.is_symlink()
        return path.stat(), is_link, ""
    except FileNotFoundError:
        return None, is_link, "it is a link that leads nowhere" if is_link else ""
    except OSError as error:
        return None, is_link, reason_of(error)


def _checked(path: str, real: Path) -> str:
    try:
        check_path(path)
    except UnsafePath as error:
        raise unsupported(real, f"its name cannot be kept: {error.data['reason']}") from None
    return path


def _kind(mode: int) -> str:
    for test, text in (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISCHR, "a device"),
    ):
        if test(mode):
            return text
    return "no ordinary file"
