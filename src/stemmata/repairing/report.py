"""Report: what a repair did, or would do. Sizes in bytes, of contents."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from stemmata.checking import Affected


@dataclass(slots=True)
class Restored:
    """Objects that one source had."""

    source: str
    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """What no source has. `what`: file, tree or provenance; `name`: the file's path, or the kind of
    provenance.

    Of a file, `size` and `digest` (BLAKE3) tell what would have it; with a `tensor`, any file with that
    tensor has it too.
    """

    version: str
    model: str
    version_name: str
    what: str
    name: str
    tensor: str = ""
    size: int = 0
    digest: str = ""


@dataclass(slots=True)
class RepairReport:
    """`dry`: nothing was done, and what is told is what would be."""

    dry: bool
    damaged: list[str] = field(default_factory=list)
    """Packs that were found damaged, by their keys."""
    restored: list[Restored] = field(default_factory=list)
    """What was damaged or missing, by where it came from."""
    whole: list[Affected] = field(default_factory=list)
    """Versions that had damage and have none left."""
    lost: list[Lost] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Damage that is not in packs, and packs that had to stay as they are."""
    packs_added: int = 0
    packs_retired: int = 0
    versions_placed: int = 0
    checkpoints: list[str] = field(default_factory=list)
    """Keys of the log's checkpoints that were wrong: they were deleted, and a new one is written."""
    written: int = 0
    """Bytes of new packs, as stored."""

    @property
    def sound(self) -> bool:
        """True if no damage is left."""
        return not self.left and not self.lost and not (self.dry and (self.damaged or self.checkpoints))

    def to_dict(self) -> dict[str, object]:
        return {"sound": self.sound, **asdict(self)}
