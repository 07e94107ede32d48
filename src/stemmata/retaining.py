"""Retaining: a model's policy is set, shown and applied. Owns what of the catalog a policy gets to see.

The rules themselves are `retention`'s. Setting a policy and deleting what it lets go is one entry of the log.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from stemmata.catalog import deletions, filling, queries, selecting
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.conditions import Name
from stemmata.catalog.queries import VersionRow
from stemmata.deleting import delete_ops
from stemmata.errors import InvalidArgument, VersionNotFound
from stemmata.ids import VersionId
from stemmata.log.ops import ModelConfigure, Op
from stemmata.metricnames import Direction, direction_of
from stemmata.names import name_key
from stemmata.resolve import best_of
from stemmata.retention import SETTING, Best, Past, Policy, Verdict, judge
from stemmata.session import Session
from stemmata.undo import SETTING as UNDO_SETTING


@dataclass(frozen=True, slots=True)
class Retained:
    """What a policy says of a model's versions, newest first; and the entry of the log that deleted those
    that go, None if none did."""

    model: str
    policy: Policy
    verdicts: tuple[Verdict, ...]
    rows: tuple[VersionRow, ...] = field(repr=False)
    """Of the same versions, in the same order."""
    entry: int | None = None

    @property
    def gone(self) -> list[VersionId]:
        """The versions that are, or would be, deleted."""
        return [verdict.version for verdict in self.verdicts if verdict.goes]


def stored_policy(session: Session, model: str) -> Policy | None:
    """The policy that a model has. Raises InvalidArgument if it is of no form that this release knows."""
    found = queries.settings(session.catalog.connection, name_key(model)).get(SETTING)
    return None if found is None else Policy.from_setting(found)


def simulate(session: Session, model: str, policy: Policy | None = None) -> Retained:
    """What a policy, else the stored one, would do now; nothing is changed. Raises NothingKept."""
    session.refresh()
    return _judged(session.catalog.connection, model, policy or _stored(session, model))


def retain(
    session: Session,
    model: str,
    policy: Policy | None = None,
    *,
    undo_window: int | None = None,
    why: str = "",
    only: Collection[VersionId] | None = None,
) -> Retained:
    """Store a policy, if one is given, and delete what it, or else the stored one, does not keep.

    `only`: of those, only these go: what somebody has looked at. Raises NothingKept; then nothing changed.
    """
    found: list[Retained] = []

    def plan(catalog: Catalog) -> list[Op]:
        chosen = policy or _stored(session, model)
        judged = _judged(catalog.connection, model, chosen)
        if only is not None:
            judged = replace(judged, verdicts=tuple(_spared(judged.verdicts, only)))
        found[:] = [judged]
        settings: dict[str, object] = {} if policy is None else {SETTING: policy.to_setting()}
        if undo_window is not None:
            settings[UNDO_SETTING] = undo_window
        before = queries.settings(catalog.connection, name_key(model))
        changed = {k: v for k, v in settings.items() if before.get(k) != v}
        reason = why or f"retain {chosen}"
        ops: list[Op] = [ModelConfigure(model=judged.model, settings=changed)] if changed else []
        return [*ops, *delete_ops(judged.gone, reason)]

    done = session.commit(plan)
    return replace(found[0], entry=done.position.n if found[0].gone else None)


def _spared(verdicts: Sequence[Verdict], only: Collection[VersionId]) -> list[Verdict]:
    only = frozenset(only)  # asked for every version
    return [
        replace(v, kept=("it was not among those shown",), why="") if v.goes and v.version not in only else v
        for v in verdicts
    ]


def set_undo_window(session: Session, model: str, seconds: int) -> None:
    """For how long a deletion in this model can be undone at least."""
    session.commit(lambda _: [ModelConfigure(model=model, settings={UNDO_SETTING: seconds})])


def clear(session: Session, model: str) -> bool:
    """Take a model's policy away; False if it has none. Deletes nothing."""

    def plan(catalog: Catalog) -> list[Op]:
        there = SETTING in queries.settings(catalog.connection, name_key(model))
        return [ModelConfigure(model=model, settings={SETTING: None})] if there else []

    return session.commit(plan).txn is not None


def _stored(session: Session, model: str) -> Policy:
    found = stored_policy(session, model)
    if found is None:
        reason = f"{model!r} has no policy yet; give --last, --best, --every or --within"
        raise InvalidArgument(argument="retain", reason=reason)
    return found


def _judged(connection: sqlite3.Connection, model: str, policy: Policy) -> Retained:
    key = name_key(model)
    rows = selecting.versions(connection, key)
    wanted, directions = _named(connection, key, policy)
    bases: dict[VersionId, VersionId] = {}
    pins: dict[VersionId, list[str]] = {}
    for ref in queries.refs(connection, key):
        if ref.kind != "name":
            pins.setdefault(ref.target, []).append(f"{ref.kind} {ref.name}")
    for need in deletions.needs(connection):
        if need.model == key:
            bases[need.version] = need.base
        else:
            name = queries.model_name(connection, need.model)
            pins.setdefault(need.base, []).append(f"base of {name}@{need.name}")
    metrics = _metrics(connection, key, directions)
    history = [
        Past(
            row.id,
            row.seq,
            _seconds(row.created_at),
            metrics.get(row.seq, {}),
            bases.get(row.id),
            tuple(pins.get(row.id, ())),
        )
        for row in rows
    ]
    name = queries.model_name(connection, key)
    now = datetime.now(UTC).timestamp()
    verdicts = judge(history, wanted, model=name, directions=directions, now=now)
    return Retained(name, policy, tuple(verdicts), tuple(rows))


def _named(connection: sqlite3.Connection, key: str, policy: Policy) -> tuple[Policy, dict[str, Direction]]:
    """The policy with every metric named, and which way each is better."""
    settings = queries.settings(connection, key)
    primary, declared = settings.get("primary_metric"), settings.get("direction")
    named: list[Best] = []
    for best in policy.best:
        metric = best.metric or (primary if isinstance(primary, str) else None)
        if metric is None:
            try:
                metric = best_of(connection, key).metric
            except VersionNotFound as error:
                raise InvalidArgument(
                    argument="best", reason=f"{error.data['reason']}; write N:metric"
                ) from None
        named.append(Best(best.count, metric, best.direction))
    directions: dict[str, Direction] = {}
    for metric in {best.metric for best in named if best.metric is not None}:
        directions[metric] = direction_of(metric)
        if metric == primary and declared in ("min", "max"):
            directions[metric] = "min" if declared == "min" else "max"
    return replace(policy, best=tuple(named)), directions


def _metrics(connection: sqlite3.Connection, key: str, names: Collection[str]) -> dict[int, dict[str, float]]:
    """Values of these metrics by `seq`; NaN is a value."""
    found: dict[int, dict[str, float]] = {}
    filling.need(connection, [Name(name, "metric") for name in names], key)
    for name in names:
        sql = (
            "SELECT v.seq, f.num FROM keys k JOIN facts f ON f.key = k.id"
            " JOIN versions v ON v.seq = f.version"
            " WHERE k.space = 'metric' AND k.key = ? AND k.model = ? AND v.state = 'visible'"
        )
        for seq, number in connection.execute(sql, (name, key)).fetchall():
            found.setdefault(seq, {})[name] = math.nan if number is None else float(number)
    return found


def _seconds(stamp: str) -> float | None:
    """A record's time; None for what is none: it may say anything."""
    try:
        moment = datetime.fromisoformat(stamp)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
