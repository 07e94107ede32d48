"""Path: the versions between a good one and a bad one, in order. Owns what is said where there is no
order."""

from __future__ import annotations

from collections.abc import Iterable

from stemmata.catalog import queries, selecting
from stemmata.catalog.queries import VersionRow
from stemmata.errors import InvalidArgument
from stemmata.histories.problems import NoLine
from stemmata.ids import VersionId
from stemmata.names import name_key
from stemmata.resolve import as_it_is, no_such_run
from stemmata.session import Session

_TIME = "or take the versions of the model in the order in which they were saved: --by time"


def by_parents(session: Session, good: VersionRow, bad: VersionRow) -> list[VersionRow]:
    """The versions that lead from `good` to `bad`, without the first: along first parents where these lead
    there, else through merges. Deleted ones are among them. Raises NoLine."""
    _require_two(session, good, bad)
    family = _Family(session)
    above = family.ancestors(bad)
    if good.id not in above:
        raise _no_line(session, family, good, bad)
    leads = family.descendants_within(good.id, above)
    row, found = bad, [bad]
    while True:
        # The first parent goes on with the line; another one only where that leads elsewhere.
        following = next(each for each in family.parents(row) if each in leads)
        if following == good.id:
            return found[::-1]
        row = above[following]
        found.append(row)


def by_time(session: Session, good: VersionRow, bad: VersionRow, run: str | None = None) -> list[VersionRow]:
    """The visible versions of a model, or of one of its runs, that were saved after `good`, up to `bad`.
    Raises NoLine."""
    _require_two(session, good, bad)
    names = {"good": _label(session, good), "bad": _label(session, bad)}
    if good.model != bad.model:
        hint = "name two versions of one model"
        raise NoLine(**names, reason="they are of different models, which have no common order", hint=hint)
    if good.seq > bad.seq:
        hint = "the good version comes first; to find what made it better, say that the worse one is good"
        raise NoLine(**names, reason=f"{names['good']} was saved later", hint=hint)
    connection = session.catalog.connection
    rows = selecting.versions(connection, good.model, run=run)
    if run is not None and {name_key(row.run or "") for row in (good, bad)} != {name_key(run)}:
        known = queries.runs(connection, good.model)
        if as_it_is(run, known) not in known:
            raise no_such_run(queries.model_name(connection, good.model), run, known, names["good"])
        hint = "name two of its versions, or leave the run out"
        raise NoLine(**names, reason=f"they are not both of run {run!r}", hint=hint)
    between = [row for row in reversed(rows) if good.seq < row.seq < bad.seq]
    return [*between, bad]


def _require_two(session: Session, good: VersionRow, bad: VersionRow) -> None:
    if good.id == bad.id:
        name = _label(session, good)
        raise InvalidArgument(argument="bisect", reason=f"the good and the bad version are the same: {name}")


def _no_line(session: Session, family: _Family, good: VersionRow, bad: VersionRow) -> NoLine:
    names = {"good": _label(session, good), "bad": _label(session, bad)}
    before_good = family.ancestors(good)
    if bad.id in before_good:
        hint = "the good version comes first; to find what made it better, say that the worse one is good"
        reason = f"it is the other way round: {names['good']} came from {names['bad']}"
        return NoLine(**names, reason=reason, hint=hint)
    common = next((row for each, row in family.ancestors(bad).items() if each in before_good), None)
    same = good.model == bad.model
    if common is not None:
        name = _label(session, common)
        reason = f"{names['bad']} does not come from {names['good']}; both come from {name}"
        hint = f"is that one good? then: stemmata bisect {name} {names['bad']}" + (
            f"; {_TIME}" if same else ""
        )
        return NoLine(**names, reason=reason, hint=hint)
    reason = "they have no common ancestor"
    elsewhere = next((r for r in (bad, good) if family.ends_elsewhere(r)), None)
    if elsewhere is not None:
        reason += f"; what {_label(session, elsewhere)} came from is not in this repository"
    hint = "name a good version that the bad one came from: stemmata lineage " + names["bad"]
    return NoLine(**names, reason=reason, hint=f"{hint}; {_TIME}" if same else hint)


class _Family:
    """Who came from whom, as far as it was looked at."""

    def __init__(self, session: Session) -> None:
        self._connection = session.catalog.connection
        self._parents: dict[VersionId, list[VersionId]] = {}

    def parents(self, row: VersionRow) -> list[VersionId]:
        if row.id not in self._parents:
            self._parents[row.id] = queries.parents(self._connection, row.seq)
        return self._parents[row.id]

    def ancestors(self, row: VersionRow) -> dict[VersionId, VersionRow]:
        """All that are in this repository, the nearest first, the version itself among them."""
        found, pending = {row.id: row}, [row]
        while pending:
            following: list[VersionRow] = []
            for each in pending:
                for parent in self.parents(each):
                    if parent in found:
                        continue
                    there = queries.version_by_id(self._connection, parent)
                    if there is not None:
                        found[parent] = there
                        following.append(there)
            pending = following
        return found

    def descendants_within(self, version: VersionId, those: dict[VersionId, VersionRow]) -> set[VersionId]:
        """Those that came from it, and it."""
        children: dict[VersionId, list[VersionId]] = {}
        for row in those.values():
            for parent in self.parents(row):
                children.setdefault(parent, []).append(row.id)
        found, pending = {version}, [version]
        while pending:
            fresh = [each for each in children.get(pending.pop(), ()) if each not in found]
            found.update(fresh)
            pending += fresh
        return found

    def ends_elsewhere(self, row: VersionRow) -> bool:
        """Whether something that it came from is not in this repository."""
        there = self.ancestors(row)
        named: Iterable[VersionId] = (parent for each in there.values() for parent in self.parents(each))
        return any(parent not in there for parent in named)


def _label(session: Session, row: VersionRow) -> str:
    return f"{queries.model_name(session.catalog.connection, row.model)}@{row.name}"
