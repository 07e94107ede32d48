"""Moves: what changes about versions that exist: aliases, annotations, settings.

Owns the plans of those commits; every plan is computed again at the log's end when another
writer was faster, so that what it assumes is what the log says there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stemmata.arguments import UNSET, Unset, labels_of, metrics_of, text_of
from stemmata.capture import mask, mask_value
from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.queries import RefMove
from stemmata.errors import (
    AliasMoved,
    InvalidArgument,
    NothingToRollBack,
    VersionNotFound,
)
from stemmata.ids import VersionId
from stemmata.log.ops import ModelConfigure, Op, RefDelete, VersionAnnotate
from stemmata.names import clean_name, name_key
from stemmata.naming import alias_op
from stemmata.session import Session
from stemmata.transaction import Committed

ROLLBACK = {"action": "rollback"}


@dataclass(frozen=True, slots=True)
class Move:
    """One move of an alias. `at` is RFC 3339 in UTC; None for "there was no value"."""

    model: str
    name: str
    before: VersionId | None
    after: VersionId | None
    at: str
    by: str
    why: str
    rollback: bool


def set_alias(
    session: Session,
    model: str,
    name: str,
    to: VersionId,
    *,
    why: str = "",
    expect: VersionId | Unset | None = UNSET,
    evidence: Mapping[str, object] | None = None,
) -> Move:
    """Point an alias at `to`. Raises AliasMoved, NameTaken, VersionNotFound."""
    model, name = clean_name(model), clean_name(name)

    def plan(catalog: Catalog) -> list[Op]:
        row = queries.version_by_id(catalog.connection, to)
        if row is not None:
            session.row(to)  # a deleted one is told as such
        if row is None or row.model != name_key(model):
            raise VersionNotFound(
                reference=to.short,
                reason=f"it is not a version of {model!r}",
                hint=f"stemmata log {model} lists its versions",
            )
        current = queries.ref(catalog.connection, name_key(model), name_key(name))
        found = current.target if current is not None else None
        if not isinstance(expect, Unset) and found != expect:
            raise AliasMoved(model=model, name=name, expected=_shown(expect), found=_shown(found))
        return [alias_op(catalog, model, name, to, mask(text_of(why)), evidence=evidence)]

    return _made_by(session.commit(plan), session, model, name)


def rollback(session: Session, model: str, name: str, *, to: VersionId | None = None, why: str = "") -> Move:
    """Point an alias back at its value before the current one; a second rollback goes further.

    Versions that are gone are passed over. Raises NothingToRollBack.
    """
    model, name = clean_name(model), clean_name(name)
    session.refresh()
    past = history(session, name_key(model), name)
    if not past or past[-1].after is None:
        raise NothingToRollBack(model=model, name=name)
    current = past[-1].after
    target = to if to is not None else _previous(session, past)
    if target is None:
        raise NothingToRollBack(model=model, name=name)
    return set_alias(session, model, name, target, why=why, expect=current, evidence=ROLLBACK)


def _previous(session: Session, past: list[Move]) -> VersionId | None:
    stack: list[VersionId] = []
    for move in past:
        if move.after is None:
            stack.clear()
        elif move.rollback and move.after in stack:
            # Going back undoes everything after the value it went back to.
            del stack[len(stack) - stack[::-1].index(move.after) :]
        else:
            stack.append(move.after)
    for version in reversed(stack[:-1]):
        row = queries.version_by_id(session.catalog.connection, version)
        if row is not None and row.state == "visible" and version != stack[-1]:
            return version
    return None


def delete_alias(session: Session, model: str, name: str, *, why: str = "") -> Move:
    """Delete an alias; its history stays. Raises VersionNotFound if there is none."""
    model, name = clean_name(model), clean_name(name)

    def plan(catalog: Catalog) -> list[Op]:
        current = queries.ref(catalog.connection, name_key(model), name_key(name))
        if current is None or current.kind != "alias":
            raise VersionNotFound(
                reference=f"{model}@{name}",
                reason="there is no such alias",
                hint=f"stemmata alias list {model} lists them",
            )
        return [
            RefDelete(model=model, kind="alias", name=name, expect=current.target.hex, why=mask(text_of(why)))
        ]

    return _made_by(session.commit(plan), session, model, name)


def _made_by(committed: Committed, session: Session, model: str, name: str) -> Move:
    """The move that this commit made: others may have followed."""
    moves = history(session, name_key(model), name, until=committed.position.n)
    return moves[-1]


def history(session: Session, model_key: str, name: str, *, until: int | None = None) -> list[Move]:
    """Moves of one alias, oldest first, up to entry `until` of the log."""
    rows = queries.ref_moves(session.catalog.connection, model_key, name_key(name))
    found: list[Move] = []
    before: VersionId | None = None
    for row in rows:
        if row.kind != "alias" or (until is not None and row.n > until):
            continue
        found.append(_move(session, row, before))
        before = row.target
    return found


def _move(session: Session, row: RefMove, before: VersionId | None) -> Move:
    return Move(
        model=queries.model_name(session.catalog.connection, row.model),
        name=row.name,
        before=before,
        after=row.target,
        at=row.at,
        by=row.by,
        why=row.why,
        rollback=row.evidence == ROLLBACK,
    )


def annotate(
    session: Session,
    version: VersionId,
    *,
    metrics: Mapping[str, float],
    labels: Mapping[str, str | None],
    notes: str,
    event: str,
    why: str,
) -> None:
    """Add metrics, labels or a note to a visible version."""
    op = VersionAnnotate(
        version=version.hex,
        metrics=metrics_of(metrics) or None,
        labels={k: v and str(mask_value(k, v)) for k, v in labels_of(labels).items()} or None,
        notes=mask(text_of(notes)) or None,
        event=mask(text_of(event)),
        why=mask(text_of(why)),
    )

    def plan(_catalog: Catalog) -> list[Op]:
        session.row(version)
        return [op]

    session.commit(plan)


def configure(session: Session, model: str, settings: Mapping[str, object]) -> None:
    """Set a model's settings; null removes one. A direction belongs to the metric it was declared for:
    another metric without one takes it away, lest the least f1 be the best."""
    if not settings:
        raise InvalidArgument(argument="configure", reason="give a metric or a direction")

    def plan(catalog: Catalog) -> list[Op]:
        changed = dict(settings)
        before = queries.settings(catalog.connection, name_key(model))
        metric = changed.get("primary_metric")
        if metric not in (None, before.get("primary_metric")) and before.get("direction"):
            changed.setdefault("direction", None)
        return [ModelConfigure(model=model, settings=changed)]

    session.commit(plan)


def _shown(version: VersionId | None) -> str:
    return version.short if version is not None else "no version"
