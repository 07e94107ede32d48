"""Planning: what a run needs to be made again, where each part comes from, and what is missing. Owns the
plan, which `--dry-run` prints; nothing is written or run by it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from stemmata.capture import mask_config
from stemmata.capturing import Captured, Missing
from stemmata.capturing.reading import Attached
from stemmata.compare.environment import EnvironmentDiff
from stemmata.errors import InvalidArgument
from stemmata.reproducing import cells, changing, commands, inputs, sources, surroundings
from stemmata.reproducing.causes import is_nothing
from stemmata.reproducing.changing import Changed
from stemmata.reproducing.commands import Line
from stemmata.reproducing.inputs import BasePlan, Beside
from stemmata.reproducing.places import Places
from stemmata.reproducing.sources import Sources
from stemmata.reproducing.steps import version_at, versions_of_run
from stemmata.version import Version

_FOLDERS = ("output_dir", "logging_dir")
_SHOWN = 12
_SITE = "site-packages"
_OTHER_TRAINERS = ("lightning", "pytorch_lightning")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller asks for. `code`: a clone that has the commit; `base`: a folder with the base model;
    `links`: files and folders of the run's folders that are linked, not copied; `arguments`: masked arguments
    of the command, by name; `changes`: training arguments that become others."""

    steps: int | None = None
    code: Path | None = None
    base: Path | None = None
    links: Sequence[str] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, object] = field(default_factory=dict)


class Item(NamedTuple):
    """One part of the run, and where it comes from."""

    what: str
    how: str


@dataclass(frozen=True)
class Plan:
    """All that is needed to run a version's command again. It can be run if nothing is `blocked`."""

    version: Version
    captured: Captured
    places: Places
    sources: Sources
    base: BasePlan
    rows: Mapping[str, str]
    beside: Sequence[Beside]
    links: Sequence[str]
    argv: Sequence[str]
    secrets: Sequence[str]
    """What stands in it in place of masks: given again, and shown to nobody."""
    variables: Mapping[str, str]
    python_path: Sequence[str]
    steps: int | None
    changed: Changed | None
    outputs: Sequence[Path]
    """Places that the first run wrote, or may have: nothing is written there."""
    missing: Sequence[Missing]
    blocked: Sequence[Missing]
    notes: Sequence[str]
    surroundings: EnvironmentDiff
    """How this machine and its packages differ from those of the run."""

    @property
    def attached(self) -> Attached | None:
        return self.captured.command.attached if self.captured.command is not None else None

    @property
    def begun(self) -> str | None:
        return self.captured.command.begun if self.captured.command is not None else None

    @property
    def name(self) -> str:
        return f"{self.version.model}@{self.version.name}"

    @property
    def shown(self) -> list[str]:
        """The command line without secrets."""
        return commands.shown(self.argv, self.secrets)

    @property
    def items(self) -> list[Item]:
        found = [Item("code", self.sources.words()), Item("base", self.base.words)]
        if self.rows:
            found.append(Item("rows", f"{', '.join(self.rows)}: as they were stored"))
        if self.beside:
            size = sum(each.bytes for each in self.beside)
            count = f"{len(self.beside):,} file{'' if len(self.beside) == 1 else 's'}"
            words = f"{count} ({size:,} bytes) beside the code, as they are"
            found.append(Item("files", words))
        if self.links:
            found.append(Item("links", ", ".join(self.links)))
        if self.attached is not None:
            found.append(Item("callback", f"as stemmata run adds it, for model {self.attached.model}"))
        return found

    @property
    def reach(self) -> str:
        """How far it can go, in a sentence."""
        if self.blocked:
            return "it cannot be run; what is listed can be restored"
        if self.sources.cells:
            return "the cells that had been run when the training began, as a script"
        if self.steps is not None:
            return f"the first {self.steps:,} steps"
        if self.missing:
            return "the whole command, if it needs nothing of what is missing"
        return "the whole command"

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": {"id": self.version.id.hex, "model": self.version.model, "name": self.version.name},
            "command": self.shown,
            "folder": str(self.places.folder),
            "variables": dict(self.variables),
            "python_path": list(self.python_path),
            "steps": self.steps,
            "changes": mask_config(self.changed.arguments) if self.changed is not None else {},
            "reach": self.reach,
            "items": [item._asdict() for item in self.items],
            "copied": [str(each.there) for each in self.beside],
            "missing": [{"what": m.what, "why": m.why} for m in self.missing],
            "blocked": [{"what": m.what, "why": m.why} for m in self.blocked],
            "environment": self.surroundings.to_dict(),
            "notes": list(self.notes),
        }


def plan(version: Version, wanted: Wanted, work: Path) -> Plan:
    """Raises InvalidArgument, UnknownSetting, BaseMismatch."""
    if wanted.steps is not None and type(wanted.steps) is not int:
        raise InvalidArgument(argument="steps", reason=f"{wanted.steps!r} is no whole number")
    if wanted.steps is not None and wanted.steps < 1:
        raise InvalidArgument(argument="steps", reason=f"{wanted.steps} is less than one step")
    captured = version.captured()
    captured = _as_started(captured)
    code, command = captured.code, captured.command
    places = Places.of(
        work, code.root if code is not None else "", command.folder if command is not None else ""
    )
    found = sources.plan(captured, places, wanted.code)
    base = inputs.base(version, captured, places, wanted.base)
    rows, missing = inputs.rows(version, captured)
    outputs = _outputs(captured)
    known = [*found.files, *found.deleted]
    elsewhere = [*([base.source] if base.source is not None else []), *_linked(captured, wanted)]
    beside, too_large = inputs.beside(captured, places, known, outputs, elsewhere)
    blocked = _blocked(captured, found, base)
    argv, secrets, changed, wants = _command(version, captured, wanted, places, found, base)
    variables, masked = commands.variables(captured)
    root = Path(code.root if code is not None else "")
    copied = {f"file {b.there.relative_to(root)}" for b in beside if b.there.is_relative_to(root)}
    told = [m for m in captured.missing if m.what not in copied and not m.what.startswith("argument ")]
    steps, notes = _steps(version, captured, wanted.steps)
    return Plan(
        version,
        captured,
        places,
        found,
        base,
        rows,
        beside,
        tuple(wanted.links),
        argv,
        secrets,
        variables,
        _python_path(captured, places, found),
        steps,
        changed,
        [*outputs, *_named(captured), *(each.target for each in beside if each.target is not None)],
        _once([*told, *found.missing, *base.missing, *missing, *too_large, *masked]),
        _once([*blocked, *wants]),
        notes,
        surroundings.differences(version),
    )


def _as_started(captured: Captured) -> Captured:
    """With the folder in which the command was started, if the script went to another one before it trained:
    there its own path on the command line leads to it."""
    code, command = captured.code, captured.command
    if code is None or command is None or not code.entry.path or code.entry.kind != "script":
        return captured
    line = Line.parse(command.argv)
    word = os.path.normpath(line.argv[line.script]) if line.script < len(line.argv) else ""
    entry = Path(code.root) / code.entry.path
    if not word or word.startswith(("/", "-", "..")) or Path(command.folder) / word == entry:
        return captured
    parts = Path(word).parts
    if entry.parts[-len(parts) :] != parts:
        return captured
    folder = Path(*entry.parts[: -len(parts)])
    return replace(captured, command=replace(command, folder=str(folder)))


def _once(found: Sequence[Missing]) -> list[Missing]:
    return list(dict.fromkeys(found))


def _blocked(captured: Captured, found: Sources, base: BasePlan) -> list[Missing]:
    if is_nothing(captured):
        why = "nothing was captured with it: it was saved by an earlier release, or with provenance={}"
        return [Missing("capture", why)]
    return [*commands.why_not(captured), *found.blocked, *base.blocked]


def _command(
    version: Version,
    captured: Captured,
    wanted: Wanted,
    places: Places,
    found: Sources,
    base: BasePlan,
) -> tuple[list[str], list[str], Changed | None, list[Missing]]:
    """The command line as it will be run, what of it is secret, and what it lacks."""
    command = captured.command
    recorded = tuple(command.argv) if command is not None else ()
    unknown = set(wanted.arguments) - commands.names_of_masked(recorded)
    if unknown:
        reason = f"{', '.join(sorted(unknown))} names no masked argument of the command"
        raise InvalidArgument(argument="arg", reason=reason)
    # Before anything is changed: a masked argument may be told by its number.
    names = {name.replace("-", "_") for name in wanted.changes}
    given, wants = commands.with_given(recorded, wanted.arguments, names)
    secrets = commands.given_again(recorded, given)
    changed = None
    if wanted.changes:
        changed = changing.change(version, captured, tuple(given), wanted.changes)
        given = list(changed.argv)
        secrets += changed.secrets
    if not recorded:
        return [], [], changed, []
    if found.cells:
        name, _ = cells.script_of(found.cells)
        if found.magic:
            return [sys.executable, "-m", "IPython", "--colors=NoColor", name], [], changed, _ipython()
        return [sys.executable, name], [], changed, []
    line = Line.parse(given)
    program = captured.code is not None and captured.code.entry.kind == "program"

    def moved(path: str) -> str | None:
        if base.named and Path(path) == Path(base.named):
            return str(base.target)
        if program and line.script < len(given) and path == given[line.script]:
            return None
        here = places.of_argument(path, command.folder if command is not None else "")
        return str(here) if here is not None else None

    argv, absent = commands.here(line, moved)
    if base.named and base.target is not None and str(base.target) not in argv:
        why = f"the script itself names {base.named}, where it is no more; it can be laid there"
        absent.append(Missing(f"base model {base.named}", why))
    return argv, secrets, changed, [*wants, *absent]


def _ipython() -> list[Missing]:
    from importlib.util import find_spec

    if find_spec("IPython") is not None:
        return []
    return [Missing("IPython", "the cells hold commands of it (% or !), and it is not installed here")]


def _steps(version: Version, captured: Captured, steps: int | None) -> tuple[int | None, list[str]]:
    notes = []
    trainer = captured.trainer.trainer if captured.trainer is not None else None
    if steps is not None and (trainer is None or trainer.startswith(_OTHER_TRAINERS)):
        notes.append("this run has no Trainer of transformers to stop: the whole command is run")
        steps = None
    if steps is not None and version_at(version, steps) is None:
        there = sorted({v.step for v in versions_of_run(version) if v.step is not None})
        known = f"; it has {', '.join(map(str, there[:_SHOWN]))}" if there else ""
        notes.append(f"the run has no version of step {steps}: only logged losses can be compared{known}")
    if captured.code is not None and captured.code.entry.kind == "notebook":
        notes.append("of the notebook the cells are run that had been run when the training began")
    return steps, notes


def _outputs(captured: Captured) -> list[Path]:
    folder = Path(captured.command.folder) if captured.command is not None else Path()
    said = captured.training_arguments or {}
    return [folder / str(said[name]) for name in _FOLDERS if isinstance(said.get(name), str) and said[name]]


def _linked(captured: Captured, wanted: Wanted) -> list[Path]:
    root = Path(captured.code.root if captured.code is not None else "")
    return [root / path for path in wanted.links]


def _named(captured: Captured) -> list[Path]:
    """Places that the command line names by whole paths, or outside its working folder. Whether it reads or
    writes them, the arguments do not tell."""
    command = captured.command
    if command is None:
        return []
    script = Line.parse(command.argv).script
    found = []
    for word in command.argv[script + 1 :]:
        value = word.partition("=")[2] if word.startswith("-") else word
        place = Path(os.path.normpath(Path(command.folder) / value))
        if value.startswith(("/", "../")) and (not place.exists() or place.is_dir() or place.is_file()):
            found.append(place)  # no device: /dev/null is everybody's to write
    return found


def _python_path(captured: Captured, places: Places, found: Sources) -> list[str]:
    """Where the command's Python looks for modules first: what was captured before what is installed."""
    said = captured.command.python_path if captured.command is not None else []
    folder = captured.command.folder if captured.command is not None else ""
    paths = [os.path.normpath(Path(folder) / p) for p in said]
    outside = sources.import_roots(found)
    moved = [str(places.here(p) or places.outside(p)) for p in outside]
    here = [str(places.here(p) or p) for p in paths]
    # An editable installation of the code itself would else be found where it is now.
    there = [p for p in sys.path if Path(p).is_absolute() and Path(p) != Path.cwd() and _SITE not in p]
    installed = [str(at) for p in there if (at := places.here(p)) is not None]
    own = str(Path(__file__).parents[2])
    found_anyway = _SITE in own or own in here
    return list(dict.fromkeys([*moved, *here, *installed, *([] if found_anyway else [own])]))
