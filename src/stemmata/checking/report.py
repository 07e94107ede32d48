"""The report of a check: problems, notes, affected versions, counts. Owns their words and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from stemmata.errors import Damage, NewerFormat, StemmataError, StorageFailed

FAULTS = (Damage, NewerFormat, StorageFailed)
"""What a check takes down as a problem and goes on after."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One damage. `kind`: identity, log, bundle, checkpoint, pack, object, record, tree, file, provenance
    or ref.

    `where` is a key, an entry, a pack, an object or a version's file; `versions` are the ids, in
    hex, of the visible and restorable versions that it reaches. `pack`: the name, in hex, of the live pack
    in which it lies.
    """

    kind: str
    where: str
    reason: str
    versions: tuple[str, ...] = ()
    pack: str = ""


OLDER = "this machine has seen it: an older copy, or the end of the log is gone"
"""The reason of the problem that the log ends before an entry that was here."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that is no damage: kind is catalog, void, log, bundle, checkpoint, statistics,
    orphan, unread, aside, retired, leftover or unknown."""

    kind: str
    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Affected:
    """A version that some problem reaches."""

    id: str
    model: str
    name: str


@dataclass(slots=True)
class Counts:
    """What was read. `bytes` are the stored bytes of packs, log, bundles and checkpoints."""

    entries: int = 0
    bundles: int = 0
    checkpoints: int = 0
    packs: int = 0
    objects: int = 0
    versions: int = 0
    files: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Report:
    """What `check` found."""

    level: str = "full"
    sample: float | None = None
    """The part of packs and versions that was read, None for all; `seed` takes the same again."""
    seed: int | None = None
    resumed: int = 0
    """Packs that an interrupted check had read before, and that have not changed since."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    affected: list[Affected] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    @property
    def older(self) -> bool:
        """True if this machine has seen more of the log: `accept_older` goes on without it."""
        return any(problem.reason == OLDER for problem in self.problems)

    @property
    def sound(self) -> bool:
        """True if nothing is damaged."""
        return not self.problems

    def to_dict(self) -> dict[str, object]:
        return {"sound": self.sound, **asdict(self)}


def reason_of(error: StemmataError) -> str:
    """Why, without the next step, which the report as a whole gives."""
    return str(error.data.get("reason", error.what.format(**error.data)))
