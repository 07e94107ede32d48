"""Line: the way from a version back through its first parents. Owns where it ends, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stemmata.catalog import queries
from stemmata.catalog.queries import VersionRow
from stemmata.ids import VersionId
from stemmata.session import Session


@dataclass(frozen=True, slots=True)
class Step:
    """A version of a line, and the version before it."""

    row: VersionRow
    back: int
    """How many steps it is before the version that was asked for."""
    before: VersionRow | None
    """Its first parent, whatever became of it; None where there is none in this repository."""
    parent: VersionId | None
    """The id of its first parent, which need not be in this repository; None for the first of a line."""


@dataclass(frozen=True, slots=True)
class Place:
    """A version of a line, for people: how it is called, and how far back it is."""

    id: VersionId
    model: str
    name: str
    state: str
    """visible; deleted or forgotten: it stays in the line of those that came from it."""
    created_at: str
    back: int

    def to_dict(self) -> dict[str, object]:
        return {
            "id": self.id.hex,
            "model": self.model,
            "name": self.name,
            "state": self.state,
            "created_at": self.created_at,
            "back": self.back,
        }


def steps(session: Session, row: VersionRow) -> Iterator[Step]:
    """From a version back along first parents, deleted ones too, to where the line begins or is not here."""
    back = 0
    while True:
        parents = queries.parents(session.catalog.connection, row.seq)
        parent = parents[0] if parents else None
        before = queries.version_by_id(session.catalog.connection, parent) if parent is not None else None
        yield Step(row, back, before, parent)
        if before is None:
            return
        row, back = before, back + 1


def place(session: Session, step: Step) -> Place:
    row = step.row
    model = queries.model_name(session.catalog.connection, row.model)
    return Place(row.id, model, row.name, row.state, row.created_at, step.back)
