"""Redoing: a run is made again in a work folder, and judged; or repeated with a change, as a fork.

Owns the order: plan, restore, run, match, judge, keep. The repository gets nothing of a run that is made
again but the verdict, an annotation of the version; of a repetition it gets the versions.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemmata import heads
from stemmata.arguments import seconds_of
from stemmata.capture import known_secrets, mask_known, mask_shapes
from stemmata.capturing import gitting
from stemmata.errors import InvalidArgument, StemmataError
from stemmata.ids import random_hex
from stemmata.redirecting import end_of, scratch_over
from stemmata.reproducing import counterparts, inputs, launching, moments, sources, storing
from stemmata.reproducing.closeness import tolerances_of
from stemmata.reproducing.commands import Line
from stemmata.reproducing.counterparts import Place
from stemmata.reproducing.holding import Hold
from stemmata.reproducing.launching import Ran, Target
from stemmata.reproducing.planning import Plan, Wanted
from stemmata.reproducing.planning import plan as plan_of
from stemmata.reproducing.problems import CannotReproduce, ReproductionFailed
from stemmata.reproducing.verdicts import Verdict, judge
from stemmata.reproductions import CHANGED, REPEATS, REPETITION
from stemmata.session import Session
from stemmata.version import Version

REPRODUCES = "reproduces"
"""Label of a version that was made again, in the repository of the work folder."""
_LINES = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """How to go about it. `work`: the folder to work in, which stays; by default one of its own, which goes
    unless `keep`. `timeout` in seconds; `rtol`, `atol`: see `verdicts.judge`; `why` is kept with the verdict.
    `told` hears of each stage, `output` of what the command prints."""

    work: Path | None = None
    keep: bool = False
    timeout: float | None = None
    rtol: Any = None
    atol: Any = None
    why: str = ""
    told: Callable[[str, Plan], object] | None = None
    output: Callable[[bytes], object] | None = None


@dataclass(frozen=True)
class Remade:
    """A run that was made again. `work` is the folder where it was, if that was kept."""

    version: Version
    plan: Plan
    verdict: Verdict
    status: int | None
    seconds: float
    notes: Sequence[str]
    work: Path | None

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.verdict.to_dict(),
            "seconds": round(self.seconds, 3),
            "status": self.status,
            "notes": list(self.notes),
            "missing": [{"what": m.what, "why": m.why} for m in self.plan.missing],
            "work": str(self.work) if self.work is not None else None,
        }


@dataclass(frozen=True)
class Repeated:
    """A run that was repeated with a change: the fork's versions, oldest first."""

    version: Version
    plan: Plan
    versions: Sequence[Version]
    status: int | None
    seconds: float
    notes: Sequence[str]
    work: Path | None

    @property
    def changed(self) -> str:
        return self.plan.changed.words if self.plan.changed is not None else ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "repeats": {"id": self.version.id.hex, "model": self.version.model, "name": self.version.name},
            "changed": self.changed,
            "versions": [{"id": v.id.hex, "model": v.model, "name": v.name} for v in self.versions],
            "seconds": round(self.seconds, 3),
            "status": self.status,
            "notes": list(self.notes),
            "work": str(self.work) if self.work is not None else None,
        }


def plan(version: Version, wanted: Wanted, work: Path | None = None) -> Plan:
    """What would be done. Raises InvalidArgument, UnknownSetting, BaseMismatch."""
    return plan_of(version, wanted, work if work is not None else Path("WORK"))


def reproduce(version: Version, wanted: Wanted, settings: Settings) -> Remade:
    """Make a version's run again, judge what came of it, and keep the verdict with the version.

    Raises CannotReproduce, ReproductionFailed, CommandNotStarted, InvalidArgument, BaseMismatch; before the
    command is run Damage too.
    """
    source = _folder_of(version)
    _require_sane(settings)
    with _work_folder(settings, source) as work:
        made = _restored(version, wanted, settings, work)
        moment = moments.before_run(version, made.begun)
        place = counterparts.place_of(version, moment.upto)
        with Hold(source, launching.store_in(work)) as hold:
            seen = moments.bring_up(version, moment, launching.store_in(work), hold)
            target = Target(source, seen.upto, scratch=True, labels={REPRODUCES: version.id.short})
            ran = _run(made, target, settings)
            verdict = _judged(version, place, made, ran, settings, seen.upto)
        notes = [*made.notes, *([seen.problem] if seen.problem else []), *_notes(ran, made)]
        try:
            storing.keep(version, verdict, why=settings.why)
        except StemmataError as error:
            # Days of a run are behind it: deleted meanwhile, a full disk, a contended log.
            notes.append(f"the verdict is not kept: {error}")
        return Remade(version, made, verdict, ran.status, ran.seconds, notes, _kept(settings, work))


def repeat(version: Version, wanted: Wanted, settings: Settings) -> Repeated:
    """Run a version's command again with changes, into the same repository: a run of its own, whose versions
    are labelled with what they repeat.

    Raises UnknownSetting, and as `reproduce`.
    """
    if not wanted.changes:
        raise InvalidArgument(argument="set", reason="name what is to change, as learning_rate=1e-5")
    source = _folder_of(version)
    _require_sane(settings)
    with _work_folder(settings, source) as work:
        made = _restored(version, wanted, settings, work)
        changed = made.changed.words if made.changed is not None else ""
        token = random_hex(6)
        labels = {REPEATS: version.id.short, CHANGED: changed, REPETITION: token}
        before = end_of(source)
        ran = _run(made, Target(source, before, scratch=False, labels=labels), settings)
        rows = counterparts.new_versions(version.source, version.model, before)
        found = [Version(version.source, row) for row in rows]
        mine = [v for v in found if v.labels.get(REPETITION) == token]
        if not mine:
            raise _failed(made, ran, settings, work)
        recorded = made.captured.command
        unset = set(made.changed.arguments if made.changed is not None else ()) - set(ran.told("set"))
        lost = sorted(unset - set(Line.parse(recorded.argv if recorded is not None else ()).options()))
        notes = [*made.notes, *_notes(ran, made)]
        if lost:
            notes.append(f"the command made no TrainingArguments with {', '.join(lost)}: it was not changed")
        return Repeated(version, made, mine, ran.status, ran.seconds, notes, _kept(settings, work))


# --- stages ---------------------------------------------------------------------------------------


def _judged(version: Version, place: Place, made: Plan, ran: Ran, settings: Settings, upto: int) -> Verdict:
    """What the run made, held against the original. Raises ReproductionFailed, whatever it is that fails: the
    days of a run are behind it, and its work folder is named."""
    work = made.places.work
    store = scratch_over(_folder_of(version), launching.store_in(work), upto)
    try:
        again = Session(store, author=version.source.author)
        try:
            find = counterparts.last_of if made.steps is not None else counterparts.find
            copy = find(place, again, upto)
            if copy is None:
                raise _failed(made, ran, settings, work)
            _tell(settings, "judging", made)
            return judge(
                version,
                copy,
                before=made.captured,
                after=copy.captured(),
                steps=made.steps,
                rtol=settings.rtol,
                atol=settings.atol,
            )
        finally:
            heads.forget(again.storage, again.identity)  # nobody opens it again
            again.close()
    except ReproductionFailed:
        raise
    except StemmataError as error:
        reason, hint = f"what it made cannot be judged: {error}", f"see {work / launching.LOG}"
        raise ReproductionFailed(version=made.name, reason=reason, work=str(work), hint=hint) from error


def _require_sane(settings: Settings) -> None:
    """Before hours of a run, not after them. Raises InvalidArgument."""
    tolerances_of(settings.rtol, settings.atol)
    seconds_of("timeout", settings.timeout)


def _restored(version: Version, wanted: Wanted, settings: Settings, work: Path) -> Plan:
    """The plan, carried out up to the run. Raises CannotReproduce."""
    made = plan_of(version, wanted, work)
    _tell(settings, "planned", made)
    if made.blocked:
        raise _cannot(made)
    try:
        sources.restore(made.sources, made.places)
        made.base.restore(made.places)
        inputs.lay(made.rows, made.places)
        wrong = inputs.link(made.links, made.captured, made.places)
        if wrong:
            raise InvalidArgument(argument="link", reason=f"{wrong[0].what}: {wrong[0].why}")
        inputs.copy(made.beside, made.places, _laid(made))
    except (OSError, gitting.NoTree) as error:
        raise CannotReproduce(
            version=made.name,
            reason=f"restoring it failed: {error}",
            hint="look at the place that is named, then try again",
            missing=[],
        ) from error
    return made


def _laid(made: Plan) -> list[Path]:
    """Links in the work folder that lead to what is of the user."""
    root = Path(made.captured.code.root if made.captured.code is not None else "")
    found = [made.places.here(root / path) for path in made.links]
    return [place for place in (made.base.target, *found) if place is not None]


def _run(made: Plan, target: Target, settings: Settings) -> Ran:
    _tell(settings, "running", made)
    return launching.run(made, target, timeout=settings.timeout, told=settings.output)


def _tell(settings: Settings, stage: str, made: Plan) -> None:
    if settings.told is not None:
        settings.told(stage, made)


def _cannot(made: Plan) -> CannotReproduce:
    said = "; ".join(f"{m.what}: {m.why}" for m in made.blocked)
    return CannotReproduce(
        version=made.name,
        reason=said,
        hint="stemmata reproduce REF --dry-run lists what can be restored and what is missing",
        missing=[{"what": m.what, "why": m.why} for m in made.blocked],
    )


def _failed(made: Plan, ran: Ran, settings: Settings, work: Path) -> ReproductionFailed:
    """Why there is nothing to judge. The work folder stays, to be looked at."""
    refused = ran.told("refused")
    last = _last_words(ran, made)
    hint = f"see {work / launching.LOG}"
    if refused:
        reason = f"it would have written {refused[0]}, which was there before and stays as it is"
        hint = f"give its output a path relative to the working folder; {hint}"
    elif ran.status and ran.told("unsent"):
        reason = f"it would have sent something to a hub ({ran.told('unsent')[-1]}), which is not done again"
    elif ran.status is None:
        reason = f"its command took longer than {settings.timeout:g} seconds and was ended"
        hint = f"allow more with --timeout, or check less with --steps; {hint}"
    elif ran.status:
        reason = f"its command ended with status {ran.status}{f': {last}' if last else ''}"
        if "ModuleNotFoundError" in ran.tail or "ImportError" in ran.tail:
            hint = f"stemmata show REF --requirements lists what was installed then; {hint}"
    else:
        saved = f"made no version of {made.version.model} that stands for it"
        reason = f"its command ended well, and {saved}"
    return ReproductionFailed(version=made.name, reason=reason, work=str(work), hint=hint)


def _last_words(ran: Ran, made: Plan) -> str:
    tail = mask_known(mask_shapes(ran.tail), [*made.secrets, *known_secrets()])
    return " / ".join(line.strip() for line in tail.splitlines()[-_LINES:] if line.strip())


def _notes(ran: Ran, made: Plan) -> Iterator[str]:
    for told in ran.told("moved"):
        there, _, here = told.partition("\n")
        yield f"what it writes to {there} went to {here}"
    for path in ran.told("refused"):
        yield f"it was kept from writing {path}"
    for what in ran.told("unsent"):
        yield f"nothing was sent to a hub: {what}"
    yield from ran.told("warning")
    if ran.status is None:
        yield "it was ended when its time was over"
    elif ran.status:
        yield f"it ended with status {ran.status} after that: {_last_words(ran, made)}"


# --- the work folder ------------------------------------------------------------------------------


@contextmanager
def _work_folder(settings: Settings, source: Path) -> Iterator[Path]:
    """Removed at the end, but where it is to be kept, and where somebody will want to see why it failed.
    `source`: the repository's folder, which is no place to work in."""
    if settings.work is not None:
        work = Path(os.path.abspath(settings.work))  # noqa: PTH100  (a link to it stays one)
        if work.resolve().is_relative_to(source):
            raise InvalidArgument(argument="work", reason=f"{work} lies in the repository")
        try:
            work.mkdir(mode=0o700, parents=True, exist_ok=True)  # files with secrets are restored in it
            full = any(work.iterdir())
        except OSError as error:
            raise InvalidArgument(argument="work", reason=f"{work}: {error.strerror}") from error
        if full:
            raise InvalidArgument(argument="work", reason=f"{work} holds something already")
        yield work.resolve()
        return
    work = Path(tempfile.mkdtemp(prefix="stemmata-reproduce-")).resolve()
    stays = settings.keep
    try:
        yield work
    except Exception as error:
        # What a command made in days is there, whatever it is that failed after it.
        if isinstance(error, ReproductionFailed) or launching.was_started(work):
            stays = True
            error.add_note(f"the work folder is kept: {work}")
        raise
    finally:
        if not stays:
            _remove(work)


def _kept(settings: Settings, work: Path) -> Path | None:
    return work if settings.keep or settings.work is not None else None


def _remove(folder: Path) -> None:
    """Also what is read-only: cached checkouts are."""
    for place, _, _ in os.walk(folder):
        try:
            Path(place).chmod(stat.S_IRWXU)
        except OSError:
            continue  # what cannot be removed is left behind
    shutil.rmtree(folder, ignore_errors=True)


def _folder_of(version: Version) -> Path:
    """The repository's folder. Raises CannotReproduce for one that is none."""
    storage = version.source.storage
    if storage.cache_folder is None:
        raise CannotReproduce(
            version=version.short,
            reason="its repository is no folder that another process could open",
            hint="save it into a repository in a folder",
            missing=[],
        )
    return Path(storage.where).resolve()
