"""Runs: of which run a finding is, where nobody named it. Owns telling one training from another.

Folders of many trainings have one name, and one folder may see several trainings. A checkpoint goes on with
a run if its log and that of the run's version of the nearest step agree as far as both go; without logs to
compare, if both came from one folder. What goes on with none is a run of its own: `out-2` where `out` is
another's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from blake3 import blake3

from stemmata.catalog import queries
from stemmata.errors import StemmataError
from stemmata.ids import Digest
from stemmata.intake import state as states
from stemmata.intake.folders import are_weights
from stemmata.intake.found import Found, training_of
from stemmata.names import name_key
from stemmata.repository import Repository
from stemmata.sources import Source
from stemmata.sources.files import OpenedFile
from stemmata.trees import content_digest
from stemmata.version import Version

_PIECE = 16 << 20
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Content:
    """What a finding's files hold, read once for all who ask. All raise SourceChanged."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @cached_property
    def digest(self) -> str:
        """The content digest that a save of them would have."""
        return content_digest(self._rows, self._source.empty_folders).digest

    @property
    def weights(self) -> set[tuple[str, str]]:
        """Path and digest of each file of weights."""
        return {(path, digest) for path, _, digest in self._rows if are_weights(Path(path))}

    @cached_property
    def _rows(self) -> list[tuple[str, int, str]]:
        rows = []
        for file in self._source.on_disk:
            hasher = blake3()
            with OpenedFile(file) as opened:
                for offset in range(0, file.size, _PIECE):
                    hasher.update(opened.read_at(offset, min(_PIECE, file.size - offset)))
                opened.verify_unchanged()
            rows.append((file.path, file.size, Digest(hasher.digest()).hex))
        return rows


@dataclass(frozen=True, slots=True)
class _Likely:
    """A run that the finding may be of, and what speaks for it."""

    name: str
    holds: bool
    """Whether its version of that name has the finding's very content."""
    taken: bool
    """Whether that name has another content."""
    agrees: bool | None
    same_folder: bool


class Runs:
    """The runs that the folders of one import, or one watch, turned out to be."""

    def __init__(self) -> None:
        self._claimed: dict[tuple[str, str], Path] = {}
        self._newest: dict[Path, tuple[datetime, str]] = {}

    def placed(self, repository: Repository, found: Found, content: Content) -> Found:
        """`found` in its run, under the name that it has there. Within one import no two folders share one.

        Raises what reading the files and the repository raises.
        """
        repository.session.refresh()
        if found.run_given:
            return _labelled(repository, found, content)
        names = [name for name in self._names(repository, found) if not self._is_anothers(found, name)]
        likely = [self._likely(repository, found, name, content) for name in names]
        fitting = [each for each in likely if _fits(each)]
        # Of several the newest: an emptied folder holds what was trained in it last.
        best = max(
            fitting, key=lambda each: (each.holds, each.agrees is True, each.same_folder), default=None
        )
        name = best.name if best is not None else self._free(repository, found)
        key = (name_key(found.model), name_key(name))
        is_first = best is None and key not in self._claimed
        self._claimed[key] = training_of(found)
        when = found.created_at or _LONG_AGO
        if found.is_checkpoint and when >= self._newest.get(training_of(found), (_LONG_AGO, ""))[0]:
            self._newest[training_of(found)] = (when, name)
        words = found.warning
        if name != found.run and is_first:
            said = f"{found.run} is the run of another training; that of this one is {name}"
            words = "; ".join(filter(None, (words, said)))
        return _labelled(repository, replace(found, run=name, warning=words), content)

    def _names(self, repository: Repository, found: Found) -> list[str]:
        """The folder's name, and the names of runs that were made of it, the newest first."""
        connection = repository.session.catalog.connection
        known = {name_key(name): name for name in queries.runs(connection, name_key(found.model))}
        numbers = [number for key in known if (number := _number(key, name_key(found.run)))]
        return [known[name_key(_numbered(found.run, n))] for n in sorted(numbers, reverse=True)] + (
            [] if 1 in numbers else [found.run]
        )

    def _is_anothers(self, found: Found, name: str) -> bool:
        key = (name_key(found.model), name_key(name))
        return self._claimed.get(key, training_of(found)) != training_of(found)

    def _likely(self, repository: Repository, found: Found, name: str, content: Content) -> _Likely:
        held = _content_at(repository, _labelled(repository, replace(found, run=name), content), name)
        holds = held is not None and held == content.digest
        versions = _versions(repository, found, name)
        agrees = None if holds else _agrees(found, versions)
        newest = self._newest.get(training_of(found))
        came_from = _came_from(versions, training_of(found))
        # Of a run that was saved while it trained no folder is known: the same name has to do.
        is_silent = came_from is None and agrees is None and bool(versions) and _is_silent(found, versions)
        same_folder = came_from or is_silent if newest is None else newest[1] == name
        taken = held is not None and not holds
        if taken and agrees is None and same_folder:
            # Without a log, other weights under the same name tell of another training - unless they are the
            # same beside other files.
            taken = not _same_weights(repository, found, name, content)
        return _Likely(name, holds, taken, agrees, same_folder)

    def _free(self, repository: Repository, found: Found) -> str:
        number = 1
        while True:
            name = _numbered(found.run, number)
            if (
                not self._is_anothers(found, name)
                and _content_at(repository, found, name) is None
                and not _versions(repository, found, name)
            ):
                return name
            number += 1


def _fits(run: _Likely) -> bool:
    if run.holds or run.agrees:
        return True
    return run.agrees is None and run.same_folder and not run.taken


def _labelled(repository: Repository, found: Found, content: Content) -> Found:
    """A save beside checkpoints under the name that has its content, else under the next that is free:
    `best-2` where `best` was another. All others keep their name, which then is taken."""
    number = 1
    while found.is_beside:
        label = _numbered(found.label, number)
        held = _content_at(repository, replace(found, label=label), found.run)
        if held is None or held == content.digest:
            return replace(found, label=label)
        number += 1
    return found


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _number(key: str, of: str) -> int:
    """N of the key of a run that is the N-th of its name; 0 of all others."""
    if key == of:
        return 1
    digits = key.removeprefix(f"{of}-")
    is_number = digits != key and re.fullmatch(r"[1-9][0-9]{0,8}", digits)
    return int(digits) if is_number and digits != "1" else 0


def _content_at(repository: Repository, found: Found, run: str) -> str | None:
    """The content digest of the version that has the finding's name in that run, be it deleted; "" if
    something else has the name."""
    connection = repository.session.catalog.connection
    taken = queries.ref(connection, name_key(found.model), name_key(f"{run}/{found.label}"))
    if taken is None:
        return None
    row = queries.version_by_id(connection, taken.target)
    return row.content if row is not None else ""


def _versions(repository: Repository, found: Found, run: str) -> list[Version]:
    """Those of the run that can be seen, the newest first."""
    connection = repository.session.catalog.connection
    if all(name_key(name) != name_key(run) for name in queries.runs(connection, name_key(found.model))):
        return []
    return list(repository.versions(found.model).of_run(run))


def _came_from(versions: Sequence[Version], training: Path) -> bool | None:
    """Whether the newest of these that was imported was taken from this training's folder; None if none was
    imported."""
    for version in versions:
        if "import" not in version.record.provenance:
            continue
        try:
            told = json.loads(version.provenance("import"))
            source = Found(Path(told["source"]), "", "", "", training=_path(told.get("training")))
            return training_of(source) == training
        except (StemmataError, ValueError, TypeError, KeyError):
            return False  # redacted, or written by somebody else
    return None


def _path(text: object) -> Path | None:
    return Path(text) if isinstance(text, str) else None


def _same_weights(repository: Repository, found: Found, run: str, content: Content) -> bool:
    try:
        version = repository.get(f"{found.model}@{run}/{found.label}")
        return {(f.path, f.digest) for f in version.files if are_weights(Path(f.path))} == content.weights
    except StemmataError:
        return False  # deleted


def _agrees(found: Found, versions: Sequence[Version]) -> bool | None:
    """Whether a finding's log and the run's are one training's; None if that cannot be told."""
    nearest = _nearest(found, versions)
    if nearest is None or not found.state.content:
        return None
    try:
        if "trainer_state" in nearest.record.provenance:
            return states.one_training(found.state.content, nearest.provenance("trainer_state"))
        return states.same_numbers(found.state.content, nearest.logged())
    except StemmataError:
        return None  # redacted


def _nearest(found: Found, versions: Sequence[Version]) -> Version | None:
    """The one whose step is the nearest to the finding's."""
    step = found.state.step
    if step is None:
        return None
    stepped = [(abs(v.step - step), v.step, v) for v in versions if v.step is not None]
    return min(stepped, key=lambda each: each[:2])[2] if stepped else None


def _is_silent(found: Found, versions: Sequence[Version]) -> bool:
    """Whether neither a finding nor the run logged anything before the earlier one's step: at that step a
    training's end may be logged."""
    nearest = _nearest(found, versions)
    try:
        if nearest is None or nearest.step is None or found.state.step is None:
            return states.is_silent(found.state.content, 1 << 63) and not any(v.logged() for v in versions)
        until = min(nearest.step, found.state.step)
        rows = [step for row in nearest.logged() if isinstance(step := row.get("step"), int)]
        return states.is_silent(found.state.content, until) and all(step >= until for step in rows)
    except StemmataError:
        return False  # redacted
