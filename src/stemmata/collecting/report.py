"""Report: what a collection did, or would do. Sizes in bytes, as stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass(slots=True)
class Forgotten:
    """A deleted version that can no longer be restored. `alone`: bytes that only it needed."""

    id: str
    model: str
    name: str
    alone: int


@dataclass(slots=True)
class Collection:
    """`dry`: nothing was done. What is retired now is deleted by the first run after the grace."""

    dry: bool
    forgotten: list[Forgotten] = field(default_factory=list)
    freed: int = 0
    """Bytes that nobody needs, in packs that were retired."""
    rewritten: int = 0
    """Bytes that were written anew, so that those could go."""
    packs_retired: int = 0
    packs_added: int = 0
    versions_placed: int = 0
    orphans: int = 0
    """Packs that a save which did not end has left behind."""
    deleted: int = 0
    """Bytes that were deleted from the store."""
    waiting: int = 0
    """Bytes of retired packs that a reader may still be at."""
    checkpoint: int = 0
    """Bytes of a checkpoint of the log that was due and has been written."""
    cached: int = 0
    """Checkouts of forgotten versions that were removed from the cache."""
    leftovers: int = 0
    """Files of writers that died."""

    def to_dict(self) -> dict[str, object]:
        return asdict(self)
