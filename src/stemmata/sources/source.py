"""Source: one listing that is being saved, and whether it still holds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stemmata.errors import LinkEscapes, SourceChanged, SourceMissing, UnsupportedFile
from stemmata.ids import Digest
from stemmata.sources.files import OpenedFile, SourceFile, shown
from stemmata.sources.listing import list_source
from stemmata.sources.rules import Rules


class Source:
    """What a save takes, as `scan` listed it."""

    def __init__(self, path: Path, rules: Rules, allow_broken: bool = False) -> None:
        found = list_source(path, rules)
        self.path = path
        self.root: Path = found.root
        """The folder; that of the file if a single file is saved."""
        self.files: tuple[SourceFile, ...] = tuple(found.files)
        """In the byte order of their paths."""
        self.empty_folders: tuple[str, ...] = tuple(found.empty_folders)
        self.left_out: tuple[tuple[str, str], ...] = tuple(found.left_out)
        """(path, reason) of what is not taken; a folder stands for all that is in it."""
        self.allow_broken = allow_broken
        self._rules = rules
        self._by_path = {f.path: f for f in self.files}
        self._stored: dict[str, str] = {}

    @property
    def total_bytes(self) -> int:
        return sum(f.size for f in self.files)

    def read(self, path: str) -> bytes:
        """All bytes of one file: those that were stored, if it was stored already.

        Raises KeyError for a path that is not taken, SourceChanged, UnsupportedFile.
        """
        file = self._by_path[path]
        with OpenedFile(file) as opened:
            data = opened.read_at(0, file.size)
            opened.verify_unchanged()
        if path in self._stored and Digest.of(data).hex != self._stored[path]:
            raise SourceChanged(path=shown(file.real))
        return data

    def remember(self, digests: Iterable[tuple[str, str]]) -> None:
        """Note (path, BLAKE3 hex) of what was stored; `read` answers with no other bytes then."""
        self._stored.update(digests)

    def verify_unchanged(self) -> None:
        """List everything again; raise SourceChanged if anything is no longer what it was."""
        try:
            again = list_source(self.path, self._rules)
        except (SourceMissing, UnsupportedFile, LinkEscapes):
            raise SourceChanged(path=shown(self.path)) from None
        after = {f.path: f for f in again.files}
        for path in sorted(self._by_path.keys() | after.keys()):
            if self._by_path.get(path) != after.get(path):
                raise SourceChanged(path=shown(self.root / path))
        if self.root != again.root or list(self.empty_folders) != again.empty_folders:
            raise SourceChanged(path=shown(self.path))


def scan(
    path: str | os.PathLike[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    leave_out: Mapping[str, str] | None = None,
    allow_broken: bool = False,
) -> Source:
    """List what a save of `path` would take; opens no file.

    `include` overrides what is left out by default, `exclude` overrides everything (patterns: see
    `rules`). `leave_out` adds to the defaults: pattern of a base name -> reason.
    Raises SourceMissing, LinkEscapes, UnsupportedFile.
    """
    # Absolute: a change of the working folder during the save must not look like a change of it.
    return Source(Path(path).absolute(), Rules.of(include, exclude, leave_out or {}), allow_broken)
