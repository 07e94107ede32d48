"""Sources: the run's code, put back into the work folder. Owns where it comes from: a clone of the commit
that was captured, and over it the captured files; without git those alone.

Nothing is fetched from a network, and the user's own repository of code is only read.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from stemmata.capture import known_secrets, mask_known
from stemmata.capturing import Missing, gitting
from stemmata.capturing.reading import Captured, Code, SourceFile
from stemmata.capturing.secrets import mask_source
from stemmata.errors import UnsafePath
from stemmata.reproducing import cells
from stemmata.reproducing.places import Places
from stemmata.trees import check_path

SHORT = 12
_SECONDS, _ASKED = 600.0, 60.0
"""For what git writes, and for a question."""
_LINK = re.compile(r"160000 commit ([0-9a-f]{40,64})\s+-\t(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Submodule:
    """A repository within the repository: where it is, at which commit, and where that can be had."""

    path: str
    commit: str
    source: Path | None


@dataclass(frozen=True, slots=True)
class Sources:
    """What will be restored. `commit` is None where there is no clone to be made."""

    commit: str | None = None
    repository: Path | None = None
    """Where the commit is cloned from."""
    branch: str = ""
    remote: str | None = None
    deleted: tuple[str, ...] = ()
    files: Mapping[str, SourceFile] = field(default_factory=dict)
    """By path below the root."""
    outside: Mapping[str, SourceFile] = field(default_factory=dict)
    """By whole path: modules from elsewhere that are not what they were any more."""
    submodules: tuple[Submodule, ...] = ()
    cells: tuple[str, ...] = ()
    root: str = ""
    missing: tuple[Missing, ...] = ()
    blocked: tuple[Missing, ...] = ()

    @property
    def magic(self) -> bool:
        """Whether the cells need IPython."""
        return cells.needs_ipython(self.cells)

    def words(self) -> str:
        """Where the code comes from, in a sentence."""
        parts = []
        if self.commit is not None:
            parts.append(f"commit {self.commit[:SHORT]} of {self.repository}")
        if self.files:
            kinds = "captured" if self.commit is None else "changed or untracked"
            parts.append(f"{_count(len(self.files), f'{kinds} file')}")
        if self.deleted:
            parts.append(f"{len(self.deleted)} deleted")
        if self.outside:
            parts.append(f"{_count(len(self.outside), 'module')} from elsewhere")
        if self.cells:
            parts.append(f"{_count(len(self.cells), 'cell')} that had been run")
        return ", ".join(parts) or "none: the command needs no file of its own"


def plan(captured: Captured, places: Places, code: Path | None = None) -> Sources:
    """What can be restored, and what is missing. `code`: a clone that may have the commit, besides the one
    that is recorded."""
    found = captured.code
    if found is None:
        said = next((m.why for m in captured.missing if m.what == "code"), "it was not captured")
        return Sources(blocked=(Missing("code", said),))
    inside, outside, missing = _sorted(found)
    repository, why = _repository(found, code)
    if found.commit is not None and repository is None:
        why = f"{why}; a clone that has it can be named (--code)"
        missing.append(Missing(f"commit {found.commit[:SHORT]}", why))
    submodules = tuple(_submodules(found, repository)) if repository is not None else ()
    for each in submodules:
        if each.source is None:
            why = f"its commit {each.commit[:SHORT]} is not at {Path(found.root) / each.path}"
            missing.append(Missing(f"submodule {each.path}", why))
    run = cells.runnable(found.cells) if found.entry.kind == "notebook" else []
    if found.entry.kind == "notebook" and len(run) < len(found.cells):
        left = len(found.cells) - len(run)
        why = "left out: as Python cannot read it, it failed then too"
        missing.append(Missing(_count(left, "cell"), why))
    sources = Sources(
        commit=found.commit if repository is not None else None,
        repository=repository,
        branch=found.branch or "",
        remote=found.remote,
        deleted=tuple(p for p in found.deleted if _is_safe(p)),
        files=inside,
        outside={p: f for p, f in outside.items() if places.here(p) or not _is_unchanged(Path(p), p, f)},
        submodules=submodules,
        cells=tuple(run),
        root=found.root,
        missing=tuple(missing),
    )
    return replace(sources, blocked=tuple(_blocked(found, sources)))


def _sorted(code: Code) -> tuple[dict[str, SourceFile], dict[str, SourceFile], list[Missing]]:
    """Captured files within the root, those from elsewhere, and what is wrong with any."""
    inside: dict[str, SourceFile] = {}
    outside: dict[str, SourceFile] = {}
    missing = []
    for path, file in code.files.items():
        whole = PurePosixPath(path)
        if whole.is_absolute() and ".." not in whole.parts:
            outside[path] = file
        elif _is_safe(path):
            inside[path] = file
        else:
            missing.append(Missing(f"file {path}", "its path leads out of the work folder"))
            continue
        if file.masked and _original(Path(code.root), path, file) is None:
            why = "*** stands there where a secret was, and the file is not there as it was"
            missing.append(Missing(f"secrets in {path}", why))
    return inside, outside, missing


def _blocked(code: Code, sources: Sources) -> Iterator[Missing]:
    """What the command cannot begin without."""
    entry = code.entry
    if entry.kind == "notebook":
        if not sources.cells:
            yield Missing("cells", "none of the notebook's cells was captured")
        elif any("***" in cell for cell in sources.cells):
            yield Missing("cells", "a secret in one of them was masked")
        return
    if entry.kind not in ("script", "module") or entry.path is None:
        return
    if entry.path in sources.files or Path(entry.path).is_absolute():
        return
    there = sources.repository is not None and _has(sources.repository, f"{sources.commit}:{entry.path}")
    if not there:
        yield Missing(f"file {entry.path}", "the command runs it, and neither git nor the capture has it")


def _repository(code: Code, given: Path | None) -> tuple[Path | None, str]:
    """A repository on this machine that has the commit; or why there is none."""
    if code.commit is None or re.fullmatch(r"[0-9a-f]{40,64}", code.commit) is None:
        return None, "it is no commit"
    reasons = []
    for place in (given, Path(code.root) if code.root else None):
        if place is None:
            continue
        if not place.is_dir():
            reasons.append(f"{place} is not there")
            continue
        try:
            gitting.ask(place, "cat-file", "-e", f"{code.commit}^{{commit}}", seconds=_ASKED)
        except gitting.NoTree as error:
            lacks = "valid object name" in str(error)
            reasons.append(f"{place} does not have it" if lacks else f"{place}: {error}")
        else:
            return _top(place), ""
    return None, ", ".join(reasons)


def _top(place: Path) -> Path:
    """The folder that can be cloned: of a folder within a work tree its top; a bare repository's own."""
    try:
        return Path(gitting.ask(place, "rev-parse", "--show-toplevel", seconds=_ASKED).rstrip("\n"))
    except gitting.NoTree:
        return place


def _has(repository: Path, what: str) -> bool:
    try:
        gitting.ask(repository, "cat-file", "-e", what, seconds=_ASKED)
    except gitting.NoTree:
        return False
    return True


def _submodules(code: Code, repository: Path) -> Iterator[Submodule]:
    try:
        said = gitting.ask(repository, "ls-tree", "-r", "-l", "-z", str(code.commit), seconds=_ASKED)
    except gitting.NoTree:
        return
    for line in said.split("\0"):
        found = _LINK.fullmatch(line)
        if found is not None and _is_safe(found[2]):
            source = Path(code.root) / found[2]
            there = (source / ".git").exists() and _has(source, f"{found[1]}^{{commit}}")
            yield Submodule(found[2], found[1], source if there else None)


# --- restoring ------------------------------------------------------------------------------------


def restore(sources: Sources, places: Places) -> None:
    """Put the code into the work folder, which holds none yet. Raises OSError, UnsafePath, gitting.NoTree."""
    if sources.commit is not None and sources.repository is not None:
        # A clone, not a worktree: that would leave a note in the user's repository.
        _clone(sources.repository, sources.commit, places.root, sources.branch, sources.remote)
        for each in sources.submodules:
            if each.source is not None:
                _clone(each.source, each.commit, places.root / each.path, "", None)
    places.root.mkdir(parents=True, exist_ok=True)
    _within(places, places.folder / cells.NAME).parent.mkdir(parents=True, exist_ok=True)
    for path in sources.deleted:
        _within(places, places.root / path).unlink(missing_ok=True)
    for path, file in sources.files.items():
        original = _original(Path(sources.root), path, file) if file.masked else None
        _write(_within(places, places.root / path), file, original)
    for path, file in sources.outside.items():
        target = _within(places, places.here(path) or places.outside(path))
        _write(target, file, _original(Path(), path, file) if file.masked else None)
    if sources.cells:
        name, text = cells.script_of(sources.cells)
        (places.folder / name).write_text(text, encoding="utf-8")


def import_roots(sources: Sources) -> list[str]:
    """Folders from which modules from elsewhere were imported: the first above each that is no package."""
    known = {PurePosixPath(path) for path in sources.outside}
    found: dict[str, None] = {}
    for path in known:
        folder = path.parent
        while folder / "__init__.py" in known or Path(folder / "__init__.py").is_file():
            folder = folder.parent
        found[str(folder)] = None
    return sorted(found)


def _clone(source: Path, commit: str, target: Path, branch: str, remote: str | None) -> None:
    # Objects are shared, so that also a commit which no branch holds any more is there.
    shallow = _shallow(source)
    if shallow is None:
        _git("clone", "--quiet", "--shared", "--no-checkout", "--", str(source.resolve()), str(target))
    else:
        _borrow(source, commit, target, shallow)
    named = ["-B", branch] if branch and branch != "HEAD" and _is_branch(branch) else ["--detach"]
    _git("-C", str(target), "checkout", "--quiet", "--force", *named, commit)
    if remote:
        how = "set-url" if shallow is None else "add"
        _git("-C", str(target), "remote", how, "--", "origin", remote)
    elif shallow is None:
        _git("-C", str(target), "remote", "remove", "origin")


def _shallow(source: Path) -> str | None:
    """Where the history of a shallow clone ends, as git notes it; None for a whole one. Raises NoTree."""
    if gitting.ask(source, "rev-parse", "--is-shallow-repository", seconds=_ASKED).strip() != "true":
        return None
    return _place_in(source, "shallow").read_text(encoding="ascii")


def _place_in(source: Path, name: str) -> Path:
    """Where git keeps something of a repository. Raises NoTree."""
    return source / gitting.ask(source, "rev-parse", "--git-path", name, seconds=_ASKED).rstrip("\n")


def _borrow(source: Path, commit: str, target: Path, shallow: str) -> None:
    """A repository that shares the objects of a shallow one, which git itself does not clone that way. The
    commit's parents may be gone since: a later fetch moves the end of what is there."""
    objects = _place_in(source, "objects").resolve()
    _git("init", "--quiet", "--", str(target))
    inner = target / ".git"
    (inner / "objects" / "info" / "alternates").write_text(f"{objects}\n")
    ends = dict.fromkeys([*shallow.split(), commit])
    (inner / "shallow").write_text("".join(f"{end}\n" for end in ends))


def _is_branch(name: str) -> bool:
    try:
        _git("check-ref-format", "--branch", name)
    except gitting.NoTree:
        return False
    return True


def _git(*arguments: str) -> None:
    """Run git where it writes: without the user's hooks. Raises NoTree."""
    harmless = (
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "advice.detachedHead=false",
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *harmless, *arguments],
            capture_output=True,
            timeout=_SECONDS,
            env={**environment, **gitting.QUIET},
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise gitting.NoTree(f"git {arguments[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise gitting.NoTree(f"git says: {said.splitlines()[-1] if said else done.returncode}")


def _write(target: Path, file: SourceFile, original: str | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        target.unlink()  # the commit's: what it points at is not ours to write
    target.write_bytes((original if original is not None else file.text).encode())
    if file.executable:
        target.chmod(target.stat().st_mode | 0o111)


def _within(places: Places, target: Path) -> Path:
    """Refuses what a link of the commit would lead elsewhere. Raises UnsafePath."""
    if not places.holds(target.parent):
        raise UnsafePath(path=str(target), reason="a link leads out of the work folder")
    return target


def _original(root: Path, path: str, file: SourceFile) -> str | None:
    """The text of a file in which something was masked, if it lies there and is the same when masked."""
    try:
        text = (root / path).read_bytes().decode()
        # What was kept by an earlier release may have been masked by fewer rules.
        kept, masked = (mask_known(mask_source(each, path), known_secrets()) for each in (file.text, text))
    except (OSError, ValueError):
        return None
    return text if masked == kept else None


def _is_unchanged(path: Path, name: str, file: SourceFile) -> bool:
    if file.masked:
        return _original(Path(), name, file) is not None
    try:
        return path.read_bytes() == file.text.encode()
    except OSError:
        return False


def _is_safe(path: str) -> bool:
    try:
        check_path(path)
    except UnsafePath:
        return False
    return path.split("/")[0] != ".git"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
