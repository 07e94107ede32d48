"""Keeping: which versions of a run stay. Owns the policies (`keep=`) and the marks that they leave.

Nothing is deleted here. A version that the policy no longer needs gets the label `deletable`; whoever
deletes looks again at what needs it then. Each mark is decided at the log's end, so that an alias that was
set a moment ago counts, and is taken back when its version is needed after all.
"""

from __future__ import annotations

import logging
import math
import re
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stemmata import resuming
from stemmata.catalog import lines
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.lines import DELETABLE
from stemmata.catalog.queries import VersionRow
from stemmata.errors import Damage, InvalidArgument, VersionNotFound
from stemmata.ids import VersionId
from stemmata.log.entries import Position
from stemmata.log.ops import Op, VersionAnnotate
from stemmata.metricnames import Direction
from stemmata.names import name_key
from stemmata.records import Run
from stemmata.resolve import best_of
from stemmata.session import Session

_FORMS = "write 'all', a number from 1 on (the newest ones), or 'best:2' (those by the primary metric)"
_LAST = re.compile(r"(final|best)(-\d+)?")
_log = logging.getLogger("stemmata")


@dataclass(frozen=True, slots=True)
class Keep:
    """A policy: all versions of a run stay, or the newest `count`, or the `count` best."""

    count: int | None = None
    by_metric: bool = False

    @classmethod
    def parse(cls, given: object) -> Keep:
        """From `"all"`, a number or `"best:N"`. Raises InvalidArgument."""
        if given == "all":
            return cls()
        words = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else ""
        found = re.fullmatch(r"(best:)?([1-9][0-9]{0,8})", words, re.ASCII)
        if found is None:
            raise InvalidArgument(argument="keep", reason=f"{given!r} is no policy; {_FORMS}")
        return cls(int(found[2]), by_metric=found[1] is not None)

    def __str__(self) -> str:
        return "keep=all" if self.count is None else f"keep={'best:' if self.by_metric else ''}{self.count}"


@dataclass(frozen=True, slots=True)
class Past:
    """A version of a run, as a policy sees it."""

    version: VersionId
    step: int | None = None
    value: float | None = None
    """Of the metric that decides; None: it has none yet. NaN is a value, the worst."""
    held: bool = False
    """Needed whatever the policy: an alias or tag points at it, another run came from it, …"""
    restored: bool = False
    """Best weights that came back at the end: committed last, but none of the newest."""


def deletable(history: Sequence[Past], keep: Keep, direction: Direction) -> set[VersionId]:
    """The versions that `keep` no longer needs; `history` is in the order of the commits.

    Never among them: the newest, the best, what is held, and what is still to be measured: a version
    without a value for as long as no later one has one. After that it counts less than any number.
    """
    if keep.count is None or not history:
        return set()
    ranked = _ranked(history, direction)
    line = [past for past in history if not past.restored]
    stay = [*history[-1:], *line[-1:], *(past for past in ranked[:1] if past.value is not None)]
    stay += [*ranked[: keep.count], *_pending(history)] if keep.by_metric else line[-keep.count :]
    kept = {past.version for past in stay}
    return {past.version for past in history if not past.held} - kept


def _pending(history: Sequence[Past]) -> list[Past]:
    """Those after the last one that was measured: their evaluation may be under way."""
    measured = [place for place, past in enumerate(history) if past.value is not None]
    return list(history[measured[-1] + 1 if measured else 0 :])


def _ranked(history: Sequence[Past], direction: Direction) -> list[Past]:
    """Best first, of equals the earlier; then what was never measured, then NaN, the newest first."""
    numbers = [past for past in history if past.value is not None and not math.isnan(past.value)]
    numbers.sort(key=lambda past: past.value or 0.0, reverse=direction == "max")
    passed = [past for past in history[: len(history) - len(_pending(history))] if past.value is None]
    broken = [past for past in history if past.value is not None and math.isnan(past.value)]
    return [*numbers, *reversed(passed), *reversed(broken)]


def deletable_states(
    states: Sequence[Past], kept_steps: Collection[int | None], newest: VersionId | None
) -> set[VersionId]:
    """The states that nobody goes on from: neither the newest complete one, nor of a kept version's
    step, nor held."""
    return {s.version for s in states if not (s.held or s.version == newest or s.step in kept_steps)}


def metric_of(arguments: Any) -> tuple[str, Direction] | None:
    """The metric by which the Trainer itself tells its best model, and which way; None: it does not."""
    name = getattr(arguments, "metric_for_best_model", None)
    if not name:
        return None
    # As the Trainer reads it: "loss" is the evaluation's.
    full = name if name.startswith("eval_") else f"eval_{name}"
    return full, "max" if arguments.greater_is_better else "min"


class Keeping:
    """Keeps the marks of one run up to date. Of one thread: the writer's."""

    def __init__(
        self, session: Session, model: str, keep: Keep, metric: tuple[str, Direction] | None = None
    ) -> None:
        self.keep = keep
        self.resumed = False
        """Whether the run goes on: an earlier part of it may have had another policy."""
        self.unjudged = ""
        """Why no version could be told from another at the last look; empty if they could."""
        self._session = session
        self._model = model
        self._metric = metric
        self._seen: Position | None = None
        self._complete: set[VersionId] = set()
        self._bases: set[VersionId] = set()
        self._bases_seen = 0

    def apply(self, run: Run) -> None:
        """Mark what the policy no longer needs, in one entry of the log; take back what it needs again.

        Raises the errors of a commit; then no mark has changed.
        """
        if self.keep.count is None and not self.resumed:
            return
        if self._session.catalog.refresh() == self._seen:
            return
        self._seen = self._session.commit(lambda catalog: self._plan(catalog, run)).position

    def report(self, run: Run) -> None:
        """At the end: say so if a policy by a metric had nothing to go by."""
        if self.keep.by_metric and self.unjudged:
            _log.warning(
                "%s marked nothing in run %s of %s: %s", self.keep, run.name, self._model, self.unjudged
            )

    def _plan(self, catalog: Catalog, run: Run) -> list[Op]:
        connection = catalog.connection
        # A name too long for a model of states has none, and is no reason to fail here.
        key, states = name_key(self._model), name_key(self._model + resuming.SUFFIX)
        history, direction = self._history(connection, key, run)
        gone = deletable(history, self.keep, direction)
        ops = self._marks(lines.label(connection, key, run, DELETABLE), history, gone)
        rows = lines.versions(connection, states, run)
        if rows:
            held = self._held(connection, states, run)
            kept = [Past(row.id, row.step, held=row.id in held) for row in rows]
            steps = {past.step for past in history if past.version not in gone}
            everything = self.keep.count is None
            old = set() if everything else deletable_states(kept, steps, self._newest_complete(rows))
            ops += self._marks(lines.label(connection, states, run, DELETABLE), kept, old)
        return ops

    def _history(self, connection: sqlite3.Connection, key: str, run: Run) -> tuple[list[Past], Direction]:
        rows = lines.versions(connection, key, run)
        if not rows:
            return [], "min"
        held = self._held(connection, key, run)
        with suppress(VersionNotFound):  # nothing tells its versions apart
            held.add(best_of(connection, key).row.id)
        metric, way = self._metric or (None, None)
        try:
            best = best_of(connection, key, metric=metric, direction=way, run=run.name)
            metric, way, self.unjudged = best.metric, best.direction, ""
        except VersionNotFound as error:
            self.unjudged = str(error.data["reason"])
        values = lines.metric(connection, key, run, metric) if metric is not None else {}
        history = [
            Past(row.id, row.step, values.get(row.id), row.id in held, row.event == "best") for row in rows
        ]
        return history, way or "min"

    def _held(self, connection: sqlite3.Connection, key: str, run: Run) -> set[VersionId]:
        """The run's versions that something outside its policy needs, as far as the catalog tells."""
        self._bases_seen, found = lines.bases(connection, self._bases_seen)
        self._bases |= found
        held = self._bases | lines.sources(connection, key, run)
        for version, kind, name in lines.names(connection, key, run):
            if kind != "name" or _LAST.fullmatch(name.removeprefix(f"{run.name}/")):
                held.add(version)
        return held

    def _newest_complete(self, rows: Sequence[VersionRow]) -> VersionId | None:
        for row in reversed(rows):
            try:
                if row.id in self._complete or not resuming.lacks(self._session, row):
                    self._complete.add(row.id)
                    return row.id
            except Damage:
                continue  # nobody can go on from it
        return None

    def _marks(
        self, labels: Mapping[VersionId, str], history: Sequence[Past], gone: Collection[VersionId]
    ) -> list[Op]:
        ops: list[Op] = []
        for version in (past.version for past in history):
            label = labels.get(version)
            if version in gone and label is None:
                ops.append(self._mark(version, str(self.keep)))
            elif version not in gone and lines.is_mark(label):
                ops.append(self._mark(version, None))
        return ops

    @staticmethod
    def _mark(version: VersionId, words: str | None) -> Op:
        return VersionAnnotate(version=version.hex, labels={DELETABLE: words}, event="keep")
