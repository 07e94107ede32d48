"""Places: where what lay in the run's folders lies in the work folder. Owns that layout, and touches no disk.

code/       the folder of the code, and the working folder if it lies in or around it
folder/     the working folder, where it lies elsewhere
outside/    captured files from elsewhere, below their whole paths
outputs/    what the command would write elsewhere
base/       a base model for a command that names it
store/      the repository that the versions go to; others/ further ones
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Places:
    """`pairs`: a folder as it was, and as it is here; the longest first."""

    work: Path
    root: Path
    """Where the code's root is here."""
    folder: Path
    """Where the working folder is here."""
    pairs: tuple[tuple[Path, Path], ...]

    @classmethod
    def of(cls, work: Path, root: str, folder: str) -> Places:
        """For a run whose code lay in `root`, and which worked in `folder`; either may be unknown: ""."""
        code = work / "code"
        # Without `..`: what leads out of a folder must not count as lying in it.
        there, worked = (
            Path(os.path.normpath(p)) if p and Path(p).is_absolute() else None for p in (root, folder)
        )
        if there is None or worked is None:
            known = there or worked
            return cls(work, code, code, ((known, code),) if known is not None else ())
        if worked.is_relative_to(there):
            return cls(work, code, code / worked.relative_to(there), ((there, code),))
        if there.is_relative_to(worked) and not is_wide(worked):
            return cls(work, code / there.relative_to(worked), code, ((worked, code),))
        pairs = [(there, code), (worked, work / "folder")]
        pairs.sort(key=lambda pair: -len(pair[0].parts))
        return cls(work, code, work / "folder", tuple(pairs))

    def here(self, path: str | os.PathLike[str]) -> Path | None:
        """Where an absolute path of the run's folders is here; None for one that lies elsewhere."""
        whole = Path(os.path.normpath(path))
        for there, here in self.pairs:
            if whole.is_relative_to(there):
                return here / whole.relative_to(there)
        return None

    def of_argument(self, path: str, worked: str) -> Path | None:
        """Where an argument's path leads; one out of the run's folders to where that was, if it is there.
        None: it stays as it is."""
        there = Path(os.path.normpath(Path(worked) / path))
        found = self.here(there)
        if found is not None or Path(path).is_absolute() or not there.is_absolute():
            return found
        return there if there.exists() else self.outside(str(there))

    def holds(self, place: Path) -> bool:
        """Whether a place lies in the work folder, also when links on the way to it are followed."""
        return Path(os.path.normpath(place)).is_relative_to(self.work) and place.resolve().is_relative_to(
            self.work.resolve()
        )

    def outside(self, path: str) -> Path:
        """Where a captured file from elsewhere is here."""
        return self.work / "outside" / PurePosixPath(path).relative_to(PurePosixPath(path).anchor)


def is_wide(folder: Path) -> bool:
    """Whether a folder is a home, the one of temporary files, or around one: too much lies there that is no
    part of a run, and others write there at all times."""
    places = (Path.home(), Path(tempfile.gettempdir()))
    return any(folder == place or folder in place.parents for place in places)
