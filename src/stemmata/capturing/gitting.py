"""Git: what a work tree says of itself. Asks the git program, with a time limit and no shell."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import NamedTuple

from stemmata.storage.forks import held_at_forks

_log = logging.getLogger("stemmata")
SECONDS = 2.0
STATUS_SECONDS = 20.0
"""It looks at every file: a cold cache, a network drive or a very large tree take longer than a question."""
QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
"""Nothing is asked, and nothing fetched: a partial clone would, by a program that its own config names."""
DIFF_SECONDS = 10.0
_OF_A_HOOK = frozenset(
    ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
)
"""By these git tells its hooks where they are: not where the folder is that is asked about."""
_starting = held_at_forks(RLock())
"""Nobody forks while a program is being started: a data loader's worker would hold its pipes for as long as
it lives, and whoever waits for the program to end, or only to begin, would wait for that."""
_MOST_NAMED = 2000
"""Paths in one question: a command line has its bound."""


class Tree(NamedTuple):
    """A work tree as `git status` sees it; paths are relative to its top."""

    top: Path
    commit: str
    branch: str
    changed: list[str]
    deleted: list[str]
    submodules: list[str]
    """Those that stand at another commit than the one recorded."""
    untracked: list[str] | None
    """None: they could not be listed in time."""
    unknown: str = ""
    """Why nothing is known of changes, though the commit is."""


class NoTree(Exception):
    """Why git has no answer: for callers, who say it as a reason of theirs."""


class TooSlow(NoTree):
    """It did not answer in time."""


_slow: dict[Path, str] = {}
"""Work trees whose status took too long once, and how long: each save would wait for it again."""
_unlisted: set[Path] = set()
"""Those in which listing untracked files did."""


def tree(folder: Path) -> Tree:
    """The work tree that `folder` lies in. Raises NoTree."""
    top = _top(folder)
    asked = ("status", "--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=dirty")
    if top in _slow:
        return _commit(top, _slow[top])
    said = None
    if top not in _unlisted:
        try:
            said = ask(top, *asked, "--untracked-files=all", seconds=STATUS_SECONDS)
        except TooSlow:
            _unlisted.add(top)
        except NoTree:
            pass  # the other question tells why
    listed = said is not None
    if said is None:
        try:
            said = ask(top, *asked, "--untracked-files=no", seconds=STATUS_SECONDS)
        except NoTree as error:
            if isinstance(error, TooSlow):
                _slow[top] = str(error)
                _log.warning("%s over the status of %s: versions keep the commit alone", error, top)
            return _commit(top, str(error))
    found = _parse(top, said)
    if found.commit == "(initial)":
        raise NoTree("its git repository has no commit yet")
    return found if listed else found._replace(untracked=None)


def _commit(top: Path, why: str) -> Tree:
    """The commit alone, of a tree of which no more is known. Raises NoTree."""
    commit = ask(top, "rev-parse", "--verify", "HEAD").strip()
    branch = ask(top, "rev-parse", "--abbrev-ref", "HEAD").strip()
    return Tree(top, commit, branch, [], [], [], None, why)


@lru_cache(maxsize=8)
def _top(folder: Path) -> Path:
    return Path(ask(folder, "rev-parse", "--show-toplevel").rstrip("\n"))


def remote(top: Path) -> str | None:
    """The address of `origin`, else of the first remote."""
    try:
        lines = ask(top, "config", "--get-regexp", r"^remote\..*\.url$").splitlines()
    except NoTree:
        return None
    pairs = [line.partition(" ")[::2] for line in lines]
    return next((url for key, url in pairs if key == "remote.origin.url"), pairs[0][1] if pairs else None)


def diff(top: Path, paths: Sequence[str]) -> str:
    """The uncommitted changes of these files, as a patch. Raises NoTree."""
    harmless = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--submodule=short")
    named = [f":(literal){path}" for path in paths[:_MOST_NAMED]]
    return ask(top, "diff", *harmless, "HEAD", "--", *named, seconds=DIFF_SECONDS)


def tracked(top: Path, paths: Sequence[str]) -> set[str]:
    """Which of these files git knows. Raises NoTree."""
    named = [f":(literal){path}" for path in paths[:_MOST_NAMED]]
    return set(filter(None, ask(top, "ls-files", "-z", "--", *named).split("\0"))) if named else set()


def submodules(top: Path) -> bool:
    return (top / ".gitmodules").is_file()


def _parse(top: Path, said: str) -> Tree:
    found = Tree(top, "", "", [], [], [], [])
    commit = branch = ""
    for line in said.split("\0"):
        kind, _, rest = line.partition(" ")
        if kind == "#":
            key, _, value = rest.partition(" ")
            commit = value if key == "branch.oid" else commit
            branch = value if key == "branch.head" else branch
        elif kind == "?" and found.untracked is not None:
            found.untracked.append(rest)
        elif kind in ("1", "u"):
            fields = rest.split(" ", 7 if kind == "1" else 9)
            states, module, path = fields[0], fields[1], fields[-1]
            if module.startswith("S"):
                found.submodules.append(path)
            elif os.path.lexists(top / path):
                found.changed.append(path)
            elif "D" in states or not states.startswith("A"):
                found.deleted.append(path)
    return found._replace(commit=commit, branch="HEAD" if branch == "(detached)" else branch)


def ask(folder: Path, *arguments: str, seconds: float = SECONDS) -> str:
    """What git says. Raises NoTree: it is not there, there is no repository, or it is too slow."""
    # fsmonitor is a program that a repository's own config names; it is not run for a question.
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotepath=false", "-C", os.fspath(folder)]
    others = {k: v for k, v in os.environ.items() if k not in _OF_A_HOOK}
    environment = {**others, **QUIET, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        with _starting:
            child = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
    except FileNotFoundError as error:
        raise NoTree("there is no git program") from error
    except OSError as error:
        raise NoTree(f"git does not run: {error.strerror}") from error
    with child:
        try:
            told, errors = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise TooSlow(f"git took longer than {seconds:g} s") from error
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        said = errors.decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said else f"git ended with status {child.returncode}"
        none = "not a git repository" in reason
        raise NoTree("it is in no git repository" if none else f"git says: {reason}")
    return told.decode("utf-8", "surrogateescape")
