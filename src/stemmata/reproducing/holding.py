"""Holding: packs that a scratch repository leans on, kept from collections while its run is made again.

A collection deletes what the repository of now needs no more; the run, and the deltas of what it saves, may
lean on it for days. So each pack gets a second name: in the scratch repository, or, where that is on another
disk, in the repository's own cache folder, with a link to it. Both go at the end: nothing is kept from being
erased for longer. Best effort: without hard links packs are as mortal as they were.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from stemmata.checkouts.writing import hold_folder
from stemmata.ids import PackName, random_hex

_FOLDER = "held"
"""In a repository's cache folder."""


class Hold:
    """Second names for packs of the repository in folder `source`, until it is left."""

    def __init__(self, source: Path, scratch: Path) -> None:
        self._source, self._scratch = source, scratch
        self._all = source / "cache" / _FOLDER
        self._beside = self._all / f"{socket.gethostname()}-{os.getpid()}-{random_hex(4)}"
        self._lives: int | None = None
        self._given: list[Path] = []
        self._able = True

    def __enter__(self) -> Hold:
        self._sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in self._given:
            with suppress(OSError):
                path.unlink()
        shutil.rmtree(self._beside, ignore_errors=True)
        if self._lives is not None:
            os.close(self._lives)

    def take(self, packs: Iterable[PackName]) -> None:
        """Hold those that are there."""
        for pack in packs:
            if not self._able:
                return
            there, here = self._source / pack.key, self._scratch / pack.key
            try:
                here.parent.mkdir(parents=True, exist_ok=True)
                self._give(there, here, pack)
                self._given.append(here)
            except (FileExistsError, FileNotFoundError):
                continue  # held already, or gone already
            except OSError:
                self._able = False

    def _give(self, there: Path, here: Path, pack: PackName) -> None:
        try:
            here.hardlink_to(there)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            if self._lives is None:
                self._beside.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Not by its number: containers may share a name and count processes each for itself.
                self._lives = hold_folder(self._beside)
            second = self._beside / pack.hex
            second.hardlink_to(there)
            here.symlink_to(second)

    def _sweep(self) -> None:
        """What processes of this machine left that were killed."""
        with suppress(OSError):
            for folder in self._all.iterdir():
                if folder.name.rsplit("-", 2)[0] != socket.gethostname():
                    continue  # its locks may not be seen here
                held = hold_folder(folder)
                if held is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(held)
