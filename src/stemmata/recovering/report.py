"""The report of a recovery: what was put right, from where, and what is lost. Owns its words and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Recovered:
    """One key as it was written. `was` is what was wrong with it, `source` where its bytes were found."""

    key: str
    was: str
    source: str


@dataclass(frozen=True, slots=True)
class Vanished:
    """A version that cannot be reached. `model` and `name` are empty where only its id is known."""

    id: str
    model: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """Entries `first` to `last`, of which no proven copy was found.

    `after` and `before` are the times of the entries around them ("" where there is none), `versions` those
    that they added, as far as the rest of the log and the catalog tell.
    """

    first: int
    last: int
    reason: str
    after: str = ""
    before: str = ""
    versions: tuple[Vanished, ...] = ()


@dataclass(slots=True)
class RecoveryReport:
    """What `recover` did, or (`dry_run`) would do."""

    dry_run: bool = False
    recovered: list[Recovered] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    """Sound entries that do not follow the sound one before them: two histories, and neither was touched."""
    identity: str = ""
    """Why `stemmata.json` is lost; empty if it is not."""
    whole: int = 0
    """Entries 1 to this one can be read."""
    entries: int = 0
    """The last entry that there is, or was."""
    out_of_reach: list[Vanished] = field(default_factory=list)
    """Versions that sound entries behind a lost one add: they are there, and come back with it."""
    unnamed_packs: int = 0
    """Packs that no readable entry names, where entries are lost: their bytes may be theirs."""
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True if the log is whole, or would be."""
        return not self.lost and not self.identity and not self.breaks

    def to_dict(self) -> dict[str, object]:
        return {"complete": self.complete, **asdict(self)}
