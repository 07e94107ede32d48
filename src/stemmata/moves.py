"""Moves: what changes about versions that exist: aliases, annotations, settings.

Owns the plans of those commits; every plan is computed again at the log's end when another
writer was faster, so that what it assumes is what the log says there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stemmata.arguments import UNSET, Unset, labels_of, metrics_of, text_of
from stemmata.capture import mask, mask_value
from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.queries import RefMove, VersionRow
from stemmata.errors import (
    AliasMoved,
    AliasProtected,
    GateFailed,
    InvalidArgument,
    NothingToRollBack,
    VersionNotFound,
)
from stemmata.ids import VersionId
from stemmata.log.ops import ModelConfigure, Op, RefDelete, RefSet, VersionAnnotate
from stemmata.measurements import NO_DATASET, Dataset, details_of
from stemmata.names import clean_name, name_key
from stemmata.naming import alias_op
from stemmata.session import Session
from stemmata.transaction import Committed

if TYPE_CHECKING:
    # Read when an alias moves: most commands move none.
    from stemmata.gating import Requirement, Verdict


ROLLBACK = {"action": "rollback"}
_LONGEST = 2000
"""Characters of a gate's reasons in one sentence; the evidence has them all."""


@dataclass(frozen=True, slots=True)
class Move:
    """One move of an alias. `at` is RFC 3339 in UTC, empty of a dry run; None for "there was no value"."""

    model: str
    name: str
    before: VersionId | None
    after: VersionId | None
    at: str
    by: str
    why: str
    rollback: bool
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """What it rests on: `action` (rollback, promote, forced) and, of the last two, the `gate` as judged."""


def set_alias(
    session: Session,
    model: str,
    name: str,
    to: VersionId,
    *,
    why: str = "",
    expect: VersionId | Unset | None = UNSET,
    require: Sequence[str] = (),
    force: bool = False,
    dry_run: bool = False,
) -> Move:
    """Point an alias at `to`, if `require` and its own policy hold; with `force` whatever they say.

    With `dry_run` the move that would be made now; nothing moves. The gate is judged at the log's end, and
    the move is the very next entry or judged anew: nothing that was compared has changed when it takes
    effect. Raises AliasMoved, NameTaken, VersionNotFound, GateFailed, AliasProtected, InvalidExpression,
    InvalidArgument.
    """
    from stemmata.gating import requirements_of

    model, name = clean_name(model), clean_name(name)
    asked = requirements_of(require)
    _require_reason(force, why)

    def plan(catalog: Catalog) -> list[RefSet]:
        row = _target(session, catalog, model, to)
        current = _current(catalog, model, name)
        if not isinstance(expect, Unset) and current != expect:
            raise AliasMoved(model=model, name=name, expected=_shown(expect), found=_shown(current))
        verdict = _judged(catalog, row, name, asked, force=force)
        if verdict is not None and not verdict.passed and not force:
            raise gate_failed(catalog, verdict, model, name)
        evidence = None
        if verdict is not None or force:
            action = "forced" if force else "promote"
            evidence = {"action": action, "gate": verdict.to_dict() if verdict is not None else None}
        return [alias_op(catalog, model, name, to, mask(text_of(why)), evidence=evidence)]

    if dry_run:
        session.refresh()
        return _would_be(session, *plan(session.catalog))
    return _made_by(session.commit(plan), session, model, name)


def gate(session: Session, model: str, name: str, to: VersionId, require: Sequence[str] = ()) -> Verdict:
    """Judge what `set_alias` would, and move nothing. Raises as it does, but not GateFailed."""
    from stemmata.gating import Verdict, requirements_of

    model, name = clean_name(model), clean_name(name)
    asked = requirements_of(require)
    session.refresh()
    row = _target(session, session.catalog, model, to)
    return _judged(session.catalog, row, name, asked) or Verdict(to, (), {})


def gate_failed(catalog: Catalog, verdict: Verdict, model: str, name: str) -> GateFailed:
    """The error for a gate that a version does not pass."""
    row = queries.version_by_id(catalog.connection, verdict.version)
    reasons = "; ".join(dict.fromkeys(c.reason for c in verdict.failed))
    return GateFailed(
        version=f"{verdict.version.short} ({row.name})" if row is not None else verdict.version.short,
        model=model,
        name=name,
        reasons=reasons if len(reasons) <= _LONGEST else reasons[:_LONGEST] + "…",
        current=_shown(_current(catalog, model, name)),
        evidence=verdict.to_dict(),
    )


def _target(session: Session, catalog: Catalog, model: str, to: VersionId) -> VersionRow:
    row = queries.version_by_id(catalog.connection, to)
    if row is not None:
        session.row(to)  # a deleted one is told as such
    if row is None or row.model != name_key(model):
        raise VersionNotFound(
            reference=to.short,
            reason=f"it is not a version of {model!r}",
            hint=f"stemmata log {model} lists its versions",
        )
    return row


def _current(catalog: Catalog, model: str, name: str) -> VersionId | None:
    found = queries.ref(catalog.connection, name_key(model), name_key(name))
    return found.target if found is not None else None


def _judged(
    catalog: Catalog, row: VersionRow, name: str, asked: Sequence[Requirement], *, force: bool = False
) -> Verdict | None:
    """What the policy and `asked` say of a version; None if nothing is asked of it."""
    from stemmata.gating import judge
    from stemmata.protecting import policy_of

    policy = policy_of(catalog.connection, row.model, name)
    if policy is None and not asked:
        return None
    wanted = policy.requirements if policy is not None else []
    if policy is not None and not wanted and not force:
        shown = queries.model_name(catalog.connection, row.model)
        reason, hint = "it has no gate that could be passed", "say --force with a reason if it is meant"
        raise AliasProtected(model=shown, name=name, reason=reason, hint=hint)
    there = {requirement.text for requirement in wanted}
    return judge(catalog.connection, row, [*wanted, *(r for r in asked if r.text not in there)])


def _require_reason(force: bool, why: str) -> None:
    if force and not text_of(why).strip():
        raise InvalidArgument(argument="--force", reason="say why: the reason is kept in the history")


def rollback(session: Session, model: str, name: str, *, to: VersionId | None = None, why: str = "") -> Move:
    """Point an alias back at its value before the current one; a second rollback goes further.

    Versions that are gone are passed over. No gate is asked: what was there before is the way out when what
    came after fails. A protected alias goes back only to what it has been. Raises NothingToRollBack,
    AliasProtected.
    """
    from stemmata.protecting import refuse_unless_free

    model, name = clean_name(model), clean_name(name)
    session.refresh()
    past = history(session, name_key(model), name)
    if not past or past[-1].after is None:
        raise NothingToRollBack(model=model, name=name)
    current = past[-1].after
    target = to if to is not None else _previous(session, past)
    if target is None:
        raise NothingToRollBack(model=model, name=name)

    def plan(catalog: Catalog) -> list[Op]:
        _target(session, catalog, model, target)
        found = _current(catalog, model, name)
        if found != current:
            raise AliasMoved(model=model, name=name, expected=_shown(current), found=_shown(found))
        if all(move.after != target for move in past):
            reason = f"it never was at {target.short}, so that is no way back"
            refuse_unless_free(catalog, model, name, reason, "promote that version through the gate")
        return [alias_op(catalog, model, name, target, mask(text_of(why)), evidence=ROLLBACK)]

    return _made_by(session.commit(plan), session, model, name)


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


def delete_alias(session: Session, model: str, name: str, *, why: str = "", force: bool = False) -> Move:
    """Delete an alias; its history stays. Raises VersionNotFound if there is none, AliasProtected."""
    from stemmata.protecting import refuse_unless_free

    model, name = clean_name(model), clean_name(name)
    _require_reason(force, why)

    def plan(catalog: Catalog) -> list[Op]:
        current = queries.ref(catalog.connection, name_key(model), name_key(name))
        if current is None or current.kind != "alias":
            raise VersionNotFound(
                reference=f"{model}@{name}",
                reason="there is no such alias",
                hint=f"stemmata alias list {model} lists them",
            )
        if not force:
            hint = "say --force with a reason, or take its protection away"
            refuse_unless_free(catalog, model, name, "it is not deleted without being forced", hint)
        said = mask(text_of(f"forced: {why}" if force else why))
        return [RefDelete(model=model, kind="alias", name=name, expect=current.target.hex, why=said)]

    return _made_by(session.commit(plan), session, model, name)


def _would_be(session: Session, op: RefSet) -> Move:
    """The move that an op would make."""
    return Move(
        model=queries.model_name(session.catalog.connection, name_key(op.model)),
        name=op.name,
        before=VersionId.parse(op.expect) if op.expect else None,
        after=VersionId.parse(op.to),
        at="",
        by=session.author,
        why=op.why,
        rollback=False,
        evidence=op.evidence or {},
    )


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
        evidence=row.evidence,
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
    dataset: Dataset = NO_DATASET,
    source: str = "",
) -> None:
    """Add metrics, with what they were measured on and with, labels or a note to a visible version."""
    if (dataset or source) and not metrics:
        raise InvalidArgument(argument="dataset", reason="it is said of metrics, and none is given")
    op = VersionAnnotate(
        version=version.hex,
        metrics=metrics_of(metrics) or None,
        labels={k: v and str(mask_value(k, v)) for k, v in labels_of(labels).items()} or None,
        notes=mask(text_of(notes)) or None,
        details=details_of(dataset, source),
        event=mask(text_of(event)),
        why=mask(text_of(why)),
    )

    def plan(_catalog: Catalog) -> list[Op]:
        session.row(version)
        return [op]

    session.commit(plan)


def require_annotations(labels: Mapping[str, str | None], notes: str) -> None:
    """Raises what `annotate` would, before something else is done that goes with them."""
    labels_of(labels)
    text_of(notes)


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
