"""Inputs: what a run read that is no code: its base model, stored rows, and files that lay beside the code.

Owns where each comes from. What was captured by a digest is used only where the digest still holds; what was
not is taken as it is now, and listed as such. Outputs of the first run are no inputs.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from stemmata import bases
from stemmata.capturing import Missing, gitting
from stemmata.capturing.code import OUTPUT_SUFFIXES
from stemmata.capturing.reading import BaseModel, Captured
from stemmata.capturing.secrets import holds_secrets
from stemmata.errors import BaseMismatch, StemmataError, UnsafePath
from stemmata.ids import VersionId
from stemmata.records import Base
from stemmata.reproducing.places import Places, is_wide
from stemmata.version import Version
from stemmata.versions import Query, VersionList, folder_weights, version_with_weights

MOST_BYTES = 2 << 30
MOST_FILES = 20_000
"""Of what lies beside the code, copied without being asked for."""
_MOST_SEEN = 200_000
_MOST_RUNS = 1000
"""Of the newest versions, how many are asked whether one process made them too."""
_NAMED = 20
_NO_INPUTS = frozenset(
    {
        ".git",
        ".hg",
        ".venv",
        "venv",
        "node_modules",
        "__pycache__",
        ".stemmata",
        ".tox",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".ipynb_checkpoints",
        ".idea",
        ".vscode",
    }
)
_OUTPUT_NAMES = frozenset(
    ("training_args.bin", "trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth")
)
_EVENTS = "events.out.tfevents"
_REPOSITORY, _ENVIRONMENT = "stemmata.json", "pyvenv.cfg"
_OLDER = "weights in it are older than the run, which wrote there: they are not copied (--link)"
_OUTSIDE = (
    "the code names it by ../, and outside of the run's folders nothing is restored: a whole path leads there"
)
_CLIMBING = re.compile(r"""["'](\.\./[^"'\n{}$*?]{1,200})["']""")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")

# --- base -----------------------------------------------------------------------------------------

How = Literal["none", "there", "hub", "made", "link", "copy", "checkout"]


@dataclass(frozen=True, slots=True)
class BasePlan:
    """`how`: none is known of; it is still there; in the hub's cache, or to be fetched by the script; the run
    makes it itself; `source` is linked to `target`, or copied; `version` is linked."""

    how: How
    words: str
    target: Path | None = None
    source: Path | None = None
    version: Version | None = None
    named: str = ""
    """The path by which the command names it, where it lies elsewhere here."""
    missing: tuple[Missing, ...] = ()
    blocked: tuple[Missing, ...] = ()

    def restore(self, places: Places) -> None:
        """Raises OSError, Damage, UnsafePath."""
        source = self.version.path() if self.version is not None else self.source
        if self.target is not None and source is not None and not os.path.lexists(self.target):
            if not places.holds(self.target.parent):
                raise UnsafePath(path=str(self.target), reason="a link leads out of the work folder")
            self.target.parent.mkdir(parents=True, exist_ok=True)
            if self.how == "copy":
                shutil.copytree(source, self.target)
            else:
                self.target.symlink_to(source)  # read alone; the guard keeps it so


def base(version: Version, captured: Captured, places: Places, given: Path | None) -> BasePlan:
    """Where the model that the run began from is now. Raises BaseMismatch for a `given` one that is none."""
    found = version.base or _of_capture(captured.base)
    name = found.name_or_path if found is not None else ""
    if found is None or not (name or found.version):
        return BasePlan("none", "none is known of: the script makes its model itself")
    stored = _stored(version, found)
    if stored is not None and _of_the_same_process(stored, version):
        return BasePlan("made", f"the run made and saved it itself ({_named(stored)})")
    worked = captured.command.folder if captured.command is not None else ""
    there = Path(worked) / name if name else None
    here = places.here(there) if there is not None and there.is_absolute() else None
    if given is not None:
        _require_same(version, found, given)
        return _placed(found, here, places, BasePlan("link", f"{given}", source=given.absolute()))
    if there is not None and bases.is_folder(there):
        if here is not None and _came_after(there, begun_at(captured)):
            if found.digest is None or not _came_after(there, _seconds(version.created_at)):
                return BasePlan("made", f"the run made it itself ({name})")
            if _digest(there) != found.digest:
                return BasePlan("made", f"the run made it itself ({name}); another one lies there now")
            # It was copied there or unpacked, or a later run made it anew, and this one would again.
            words = f"{there}, copied: the same files, which came there since"
            return BasePlan("copy", words, target=here, source=there)
        if found.digest is None or _digest(there) == found.digest:
            words = f"{there}, where it was" + (", with the same files" if found.digest else ", unchecked")
            if here is None:
                return BasePlan("there", words)
            return BasePlan("link", words, target=here, source=there)
    if stored is not None:
        said = BasePlan("checkout", f"{_named(stored)} of this repository", version=stored)
        return _placed(found, here, places, said)
    if _HUB_ID.fullmatch(name) and not (there is not None and bases.is_folder(there)):
        return _from_hub(found)
    return _gone(found, there)


def _placed(found: Base, here: Path | None, places: Places, plan: BasePlan) -> BasePlan:
    """With a target: the same place here; else a folder that the command line is made to name."""
    if here is not None:
        return replace(plan, target=here)
    if found.name_or_path and not Path(found.name_or_path).is_absolute():
        # A name of a hub is looked for as a folder first.
        target = Path(os.path.normpath(places.folder / found.name_or_path))
        if target.is_relative_to(places.work):
            return replace(plan, target=target)
    return replace(plan, target=places.work / "base", named=found.name_or_path)


def _from_hub(found: Base) -> BasePlan:
    now = bases.complete(Base(name_or_path=found.name_or_path, revision=found.revision))
    if now.digest is not None and found.digest in (None, now.digest):
        return BasePlan("hub", f"{found.name_or_path}, in the hub's cache of this machine")
    what = "other files of it are" if now.digest is not None else "it is not"
    why = f"{what} in the hub's cache here; the script fetches it, if it can"
    return BasePlan("hub", found.name_or_path, missing=(Missing(f"base {found.name_or_path}", why),))


def _gone(found: Base, there: Path | None) -> BasePlan:
    name = found.name_or_path or str(found.version)
    rest = "and no version of this repository holds its files; a folder that has them can be named (--base)"
    if there is not None and bases.is_folder(there):
        why = f"{there} holds another model now, {rest}"
    else:
        why = f"it is not there any more, {rest}"
    return BasePlan("none", "not found", blocked=(Missing(f"base model {name}", why),))


def _of_capture(found: BaseModel | None) -> Base | None:
    if found is None:
        return None
    return Base(found.name_or_path, found.revision, found.digest, [*found.files], None)


def _stored(version: Version, found: Base) -> Version | None:
    """The version of this repository that holds the base's files."""
    session = version.source
    try:
        if found.version:
            return Version(session, session.row(VersionId.parse(found.version)))
    except (StemmataError, ValueError):
        pass  # deleted, or of another repository: another version may hold the same files
    return version_with_weights(session, found.digest, found.files) if found.digest else None


def _of_the_same_process(stored: Version, version: Version) -> bool:
    """A command's object tells when its process began: no two processes share one."""
    mine = version.record.provenance.get("command")
    return mine is not None and stored.record.provenance.get("command") == mine


def _came_after(folder: Path, moment: float | None) -> bool:
    """Whether all that lies there was written after a moment."""
    if moment is None:
        return False
    times = [entry.stat().st_mtime for entry in os.scandir(folder) if entry.is_file()]
    return bool(times) and min(times) > moment


def begun_at(captured: Captured) -> float | None:
    """When the run's process was started, in seconds since 1970."""
    return _seconds(captured.command.begun if captured.command is not None else None)


def _seconds(said: str | None) -> float | None:
    try:
        return datetime.fromisoformat(said).timestamp() if said else None
    except ValueError:
        return None


def _require_same(version: Version, found: Base, given: Path) -> None:
    now = _digest(given)
    if found.digest is not None and now != found.digest:
        raise BaseMismatch(version=version.short, expected=found.digest, found=now, where=str(given))


def _digest(folder: Path) -> str:
    return folder_weights(folder).digest


def _named(version: Version) -> str:
    return f"{version.model}@{version.name}"


# --- rows -----------------------------------------------------------------------------------------


def rows(version: Version, captured: Captured) -> tuple[dict[str, str], list[Missing]]:
    """Stored rows as files, by part. Raises Damage."""
    stored = captured.data.stored if captured.data is not None else None
    if stored is None:
        return {}, []
    session = version.source
    others = _other_runs(version)
    if others:
        why = f"the process trained {others + 1} times: which rows belong to which cannot be told"
        return {}, [Missing("stored rows", why)]
    try:
        folder = Version(session, session.row(VersionId.parse(stored.version))).path()
    except (StemmataError, ValueError) as error:
        return {}, [Missing("stored rows", f"{stored.model} has them no more: {error}")]
    found = {part: folder / file for part, file in stored.files.items() if "/" not in file}
    return {part: str(path) for part, path in found.items() if path.is_file()}, []


def _other_runs(version: Version) -> int:
    """How many further runs its process made."""
    mine = version.record.provenance.get("command")
    near = VersionList(version.source, Query(limit=_MOST_RUNS))
    made = {v.run.id for v in near if v.run is not None and v.record.provenance.get("command") == mine}
    return len(made - ({version.run.id} if version.run is not None else set()))


def here(rows: Mapping[str, str], places: Places) -> dict[str, str]:
    """Where stored rows are in the work folder, by part."""
    return {part: str(places.work / "rows" / Path(path).name) for part, path in rows.items()}


def lay(rows: Mapping[str, str], places: Places) -> None:
    """Link them there: whoever maps rows writes beside them, which the store's own folder is not for."""
    for part, path in here(rows, places).items():
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).symlink_to(rows[part])


# --- beside the code ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Beside:
    """A file that no capture holds, as it is now. `over`: also where the commit has one. `target`: it is a
    link, to a place that is not written."""

    there: Path
    here: Path
    bytes: int
    over: bool = False
    target: Path | None = None


def beside(
    captured: Captured,
    places: Places,
    known: Sequence[str],
    outputs: Sequence[Path],
    elsewhere: Sequence[Path] = (),
) -> tuple[list[Beside], list[Missing]]:
    """Files of the run's folders that git does not know and no capture holds: data, settings, whatever the
    script may read. Not what a training wrote: in `outputs`, which were the run's, and where weights came
    since, that is all that is not older than the run. Of what may be an input and is not copied it is told.
    `known` and `elsewhere` are restored otherwise.
    """
    root = captured.code.root if captured.code is not None else ""
    found: list[Beside] = []
    left: list[Missing] = []
    begun = begun_at(captured)
    for there, here in places.pairs:
        if not there.is_dir():
            continue
        if is_wide(there):
            why = "too much lies there that is no part of the run: nothing of it is copied unasked (--link)"
            left.append(Missing(f"files in {there}", why))
            continue
        older: dict[Path, None] = {}
        skipped = {there / path for path in known} if str(there) == root else set()
        skipped |= {Path(root) / path for path in known}
        walk = _Walk(there, root, captured, outputs, elsewhere, begun, older)
        for path, size in walk.files():
            if path not in skipped:
                # A file of secrets is read where it lies: no copy of it stays behind.
                target = path.resolve() if path.is_symlink() or holds_secrets(path.name) else None
                moved = places.here(target) if target is not None else None
                leads = target if moved is None or not path.is_symlink() else moved
                found.append(Beside(path, here / path.relative_to(there), size, target=leads))
        left += _told([f"folder {place}" for place in older], _OLDER)
    left += _told([f"file {place}" for place in _climbed(captured, places)], _OUTSIDE)
    copied, too_large = _bounded([*found, *_changed(captured, places)])
    return copied, [*left, *too_large]


def _climbed(captured: Captured, places: Places) -> list[Path]:
    """What captured sources name by a way out of the run's folders, such as "../data/rows.csv"."""
    worked = captured.command.folder if captured.command is not None else ""
    texts = [file.text for file in captured.code.files.values()] if captured.code is not None else []
    named = dict.fromkeys(word for text in texts for word in _CLIMBING.findall(text))
    found = [Path(os.path.normpath(Path(worked) / word)) for word in named if worked]
    outside = [place for place in found if os.access(place, os.R_OK) and places.here(place) is None]
    return [place for place in outside if not os.access(place / _REPOSITORY, os.R_OK)]  # that is redirected


def _told(whats: Sequence[str], why: str) -> list[Missing]:
    more = [f"{len(whats) - _NAMED} more"] if len(whats) > _NAMED else []
    return [Missing(what, why) for what in (*whats[:_NAMED], *more)]


def _changed(captured: Captured, places: Places) -> Iterator[Beside]:
    """Files that were changed and could not be captured: as they are now is nearer than the commit."""
    code = captured.code
    for path in code.changed if code is not None else ():
        there = Path(code.root) / path if code is not None else Path()
        here = places.here(there)
        if code is None or path in code.files or here is None:
            continue
        if there.is_symlink():
            target = there.resolve()
            yield Beside(there, here, 0, over=True, target=places.here(target) or target)
        elif there.is_file():
            yield Beside(there, here, there.stat().st_size, over=True)


def _bounded(found: list[Beside]) -> tuple[list[Beside], list[Missing]]:
    """The small ones, as many as are copied unasked; the rest is named."""
    found.sort(key=lambda each: (each.bytes, str(each.there)))
    total, taken = 0, 0
    for each in found:
        if total + each.bytes > MOST_BYTES or taken >= MOST_FILES:
            break
        total, taken = total + each.bytes, taken + 1
    left = found[taken:]
    missing = [
        Missing(f"file {each.there}", f"it has {each.bytes / (1 << 20):,.0f} MiB and is not copied (--link)")
        for each in left[-_NAMED:]
    ]
    if len(left) > _NAMED:
        missing.append(Missing(f"{len(left) - _NAMED} more files", "they are too many to be copied (--link)"))
    return sorted(found[:taken], key=lambda each: str(each.there)), missing


@dataclass(frozen=True, slots=True)
class _Walk:
    """A way through a folder, to the files that may have been read. `older`: where weights lie that are older
    than the run, in folders that it wrote."""

    there: Path
    root: str
    captured: Captured
    outputs: Sequence[Path]
    elsewhere: Sequence[Path]
    begun: float | None
    older: dict[Path, None]

    def files(self) -> Iterator[tuple[Path, int]]:
        """Each with its size, 0 for a link."""
        commit = self.captured.code.commit if self.captured.code is not None else None
        tracked = _tracked(self.there) if commit else set()
        written: set[Path] = set()
        seen = 0
        for folder, folders, names in os.walk(self.there):
            place = Path(folder)
            top = place in (self.there, Path(self.root))
            if place in self.elsewhere or _is_foreign(names, top=top):
                folders.clear()
                continue
            if (
                place.parent in written
                or place in self.outputs
                or (not top and _holds_new_weights(place, names, self.begun))
            ):
                written.add(place)
                if self.begun is None and not top:
                    folders.clear()  # what was there before cannot be told
                    continue
            for name in folders:
                link = place / name
                if link.is_symlink() and name not in _NO_INPUTS and str(link) not in tracked:
                    if place in written and self._came_since(link):
                        continue
                    if link not in (*self.outputs, *self.elsewhere) and not _leads_to_output(
                        link, self.begun
                    ):
                        yield link, 0  # what it leads to is not walked: it may be anything
            folders[:] = [f for f in folders if f not in _NO_INPUTS and not (place / f / ".git").exists()]
            for name in names:
                seen += 1
                if seen > _MOST_SEEN:
                    return
                if str(place / name) not in tracked:
                    yield from self._file(place, name, over=place in written)

    def _file(self, place: Path, name: str, *, over: bool) -> Iterator[tuple[Path, int]]:
        path = place / name
        if name == ".git" or path in self.outputs or path in self.elsewhere:
            return
        try:
            about = path.stat()
        except OSError:
            return
        weights = name.endswith(OUTPUT_SUFFIXES)
        since = self.begun is not None and about.st_mtime >= self.begun
        if not stat.S_ISREG(about.st_mode) or name in _OUTPUT_NAMES or name.startswith(_EVENTS):
            return
        if since and (over or weights):
            return
        if over and weights:
            self.older[place] = None
            return
        yield path, 0 if path.is_symlink() else about.st_size

    def _came_since(self, link: Path) -> bool:
        return self.begun is not None and link.lstat().st_mtime >= self.begun


def _leads_to_output(link: Path, begun: float | None) -> bool:
    """Outputs often lie on another disk: then the copy's own are in the work folder instead."""
    try:
        names = os.listdir(link)  # noqa: PTH208
    except OSError:
        return False
    return _is_foreign(names, top=False) or _holds_new_weights(link, names, begun)


def _is_foreign(names: Sequence[str], *, top: bool) -> bool:
    """Whether a folder is a repository's or an environment's."""
    return _ENVIRONMENT in names or (_REPOSITORY in names and not top)


def _holds_new_weights(folder: Path, names: Sequence[str], begun: float | None) -> bool:
    """Whether a training wrote there: weights that are older than the run are its inputs."""
    weights = [n for n in names if n.endswith(OUTPUT_SUFFIXES) or n in _OUTPUT_NAMES]
    try:
        return bool(weights) and (
            begun is None or any((folder / n).stat().st_mtime >= begun for n in weights)
        )
    except OSError:
        return True


def _tracked(folder: Path) -> set[str]:
    """What git knows: the clone has it, as it was."""
    try:
        said = gitting.ask(folder, "ls-files", "-z", "--full-name", ".", seconds=30)
        top = gitting.ask(folder, "rev-parse", "--show-toplevel").rstrip("\n")
    except gitting.NoTree:
        return set()
    return {str(Path(top) / path) for path in said.split("\0") if path}


def copy(found: Sequence[Beside], places: Places, laid: Sequence[Path]) -> None:
    """Copy what lies beside the code; what is there already stays, and so does what lies below a link that
    was `laid`."""
    for each in found:
        if any(each.here.is_relative_to(place) for place in laid):
            continue
        _make_folder(each.here.parent, places.work)
        if os.path.lexists(each.here) and not each.over:
            continue
        # Not written over: it may be the commit's link, and what that leads to is somebody's.
        each.here.unlink(missing_ok=True)
        if each.target is not None:
            each.here.symlink_to(each.target)
        else:
            shutil.copy2(each.there, each.here)


def _make_folder(folder: Path, work: Path) -> None:
    """A link on the way is the commit's: in the run's own folder it is a folder by now."""
    at = work
    for part in folder.relative_to(work).parts:
        at /= part
        if at.is_symlink():
            at.unlink()
        at.mkdir(exist_ok=True)


def link(paths: Sequence[str], captured: Captured, places: Places) -> list[Missing]:
    """Lay links to what the caller names, by its path in the run's folders. What is not there is told."""
    missing = []
    root = Path(captured.code.root if captured.code is not None else "")
    for path in paths:
        there = root / path
        here = places.here(there) if there.is_absolute() else None
        if here is None or not there.exists():
            missing.append(Missing(f"link {path}", f"{there} is not in the run's folders"))
        elif not places.holds(here.parent):
            missing.append(Missing(f"link {path}", "a link of the commit leads out of the work folder"))
        elif not os.path.lexists(here):
            here.parent.mkdir(parents=True, exist_ok=True)
            here.symlink_to(there)
    return missing
