"""What `stats` says. Owns the words; all amounts are bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """A model's or a run's share."""

    model: str
    run: str
    """Empty for a model as a whole, and for versions without a run."""
    versions: int
    files: int
    """All its versions' files, as they were saved."""
    needed: int
    """What it would take in the packs without all others."""
    own: int
    """What nothing else holds."""


@dataclass(frozen=True, slots=True)
class VersionPart:
    """One version's share."""

    id: str
    model: str
    name: str
    files: int
    own: int
    """What no other version holds; other objects may lean on some of it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What one codec was given, and what it made of it."""

    codec: str
    raw: int
    stored: int


@dataclass(frozen=True, slots=True)
class Growth:
    """At the end of a day, week or month: all that had been saved by then and is still here."""

    until: str
    """A day, YYYY-MM-DD, in UTC."""
    versions: int
    files: int
    stored: int


@dataclass(frozen=True, slots=True)
class Places:
    """Bytes by where they lie."""

    packs: int
    log: int
    bundles: int
    checkpoints: int
    catalog: int
    checkouts: int
    """Cached ones; may be deleted, as the catalog may."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How much space a repository takes, or one of its models, and what for."""

    model: str | None
    versions: int
    restorable: int
    """Of them: deleted ones that still can be restored."""
    files: int
    """All versions' files, as they were saved."""
    distinct: int
    """The same with equal bytes counted once."""
    stored: int
    """What that takes in the packs, objects beside the files (trees, provenance) included."""
    beside: int
    """Of it, those objects."""
    saved_by_dedup: int
    saved_by_deltas: int
    saved_by_casts: int
    saved_by_compression: int
    codecs: tuple[Kept, ...]
    models: tuple[Part, ...]
    runs: tuple[Part, ...]
    largest: tuple[VersionPart, ...]
    """The versions with most bytes of their own."""
    growth: tuple[Growth, ...]
    packs: int
    """Live packs."""
    unneeded: int
    """Bytes in them that no version needs, and no object leans on."""
    places: Places
    unread: tuple[str, ...]
    """Packs and versions that could not be read; the figures lack them."""

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return asdict(self)
