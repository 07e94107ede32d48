"""zstd's patches as a walking.py tool: a tar of each version, kept as its difference from its parent's.

Owns how a chain of patches is read. The store holds the `.zst` files alone, and their names tell what each
is a patch of; tars are rebuilt beside it and removed before the time ends.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from manifests import Entry
from peers import Archives
from walking import OUT

_PATCH = ".patch-from."
_TAR = ("--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner")
"""The same folder gives the same tar, or the parent's would not be the one that the patch is of."""
_WINDOW = "--long=31"
"""The largest that there is: zstd takes no larger file with --patch-from either."""


class Patches(Archives):
    """A patch against the parent's tar, as `zstd --patch-from` makes it; all of a tar without a parent."""

    title = "zstd 3 --patch-from"
    how = (
        "a tar, and `zstd -3 -T0 --long=31 --patch-from=PARENT.tar`; for each version up to the first "
        "`zstd -d --patch-from=…`, and `tar -x`"
    )

    def save(self, entry: Entry) -> None:
        with_parent, target = [], self._store / f"{entry.name}.tar.zst"
        if entry.parents:
            with_parent = [f"--patch-from={self._rebuilt(entry.parents[0])}"]
            target = self._store / f"{entry.name}{_PATCH}{entry.parents[0]}.tar.zst"
        tar = self._scratch() / "saved.tar"
        self._run("tar", *_TAR, "-cf", tar, "-C", entry.folder, ".")
        self._run("zstd", "-q", "-3", "-T0", _WINDOW, *with_parent, tar, "-o", target)
        shutil.rmtree(self._scratch())

    def restore(self, entry: Entry) -> Path:
        target = self._home / OUT
        target.mkdir()
        self._run("tar", "-xf", self._rebuilt(entry.name), "-C", target)
        shutil.rmtree(self._scratch())
        return target

    def _scratch(self) -> Path:
        folder = self._home / "scratch"
        folder.mkdir(exist_ok=True)
        return folder

    def _rebuilt(self, name: str) -> Path:
        """The version's tar, decoded from the first of its chain on; the one before goes with its use."""
        before: Path | None = None
        for file in reversed(list(self._chain(name))):
            tar = self._scratch() / file.name.removesuffix(".zst")
            against = [f"--patch-from={before}"] if before else []
            self._run("zstd", "-q", "-d", _WINDOW, *against, file, "-o", tar)
            if before:
                before.unlink()
            before = tar
        assert before is not None
        return before

    def _chain(self, name: str) -> Iterator[Path]:
        """The version's file, that of what it is a patch of, and so on."""
        while name:
            alone = self._store / f"{name}.tar.zst"
            file = alone if alone.exists() else next(self._store.glob(f"{name}{_PATCH}*.tar.zst"))
            yield file
            name = file.name.removesuffix(".tar.zst").partition(_PATCH)[2]
