"""Bisection: the first bad version of a line, with as few evaluations as can be. Owns the order of the steps.

line -> what is known already -> the middle of what is left -> a verdict, kept at once -> … -> the first bad
one. Versions whose stored metrics tell are judged without running anything; deleted ones count as skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

from stemmata.catalog import queries
from stemmata.catalog.queries import VersionRow
from stemmata.histories.problems import EndsDisagree
from stemmata.histories.searching import Search, Verdict
from stemmata.histories.verdicts import Cause, Judged, Verdicts
from stemmata.ids import VersionId
from stemmata.records import load_metrics, timestamp
from stemmata.session import Session

_LOOKED_THROUGH = 2000
"""Versions of a line that are all held against what is required, to see whether it turns more than once."""


class Opinion(NamedTuple):
    """What somebody thinks of a version."""

    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    ran: bool = True
    """Whether something was run to tell; else its stored metrics told, or its files could not be had."""
    cause: Cause = ""
    timeout: float | None = None
    """Seconds that it had, where these were too few."""


Judge = Callable[[VersionRow], Opinion]


@dataclass(frozen=True, slots=True)
class Point:
    """A version of the line, and what is known of it."""

    id: VersionId
    model: str
    name: str
    created_at: str
    metrics: Mapping[str, float]
    verdict: Verdict | None = None
    """None: it was not judged."""
    reason: str = ""
    seconds: float = 0.0
    ran: bool = False
    before: bool = False
    """The verdict was found by an earlier call."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id.hex,
            "model": self.model,
            "name": self.name,
            "created_at": self.created_at,
            "metrics": dict(self.metrics),
            "verdict": self.verdict,
            "reason": self.reason,
            "seconds": self.seconds,
            "ran": self.ran,
            "before": self.before,
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """How far a search is: told before a version is judged (`opinion` None), and after."""

    point: Point
    number: int
    """Which verdict of this search it is, those of earlier calls among them, from 1."""
    steps_left: int
    """How many more are judged after it, at most, unless some are skipped."""
    suspects: int
    """Versions that can be the first bad one."""
    opinion: Opinion | None = None


@dataclass(frozen=True, repr=False)
class Bisection:
    """What a search found. `line` begins with the good version; one after the other came."""

    line: tuple[Point, ...]
    suspects: tuple[Point, ...]
    """Of which one is the first bad version: it alone, unless versions before it had to be skipped."""
    evaluations: int
    """How often something was run by this call."""
    judged: tuple[Point, ...] = field(default=())
    """Every verdict, in the order in which they were found, those of earlier calls too."""
    turns: int | None = None
    """How often the verdict changes along the line, where the metrics of all versions tell (and there are no
    more than 2,000); None: not known."""

    @property
    def first_bad(self) -> Point | None:
        """None: it cannot be told which of the suspects it is."""
        return self.suspects[0] if len(self.suspects) == 1 else None

    @property
    def last_good(self) -> Point:
        """The version before the suspects."""
        return self.line[self.line.index(self.suspects[0]) - 1]

    @property
    def skipped(self) -> int:
        return sum(point.verdict == "skip" for point in self.line)

    @property
    def reused(self) -> int:
        """Verdicts of earlier calls."""
        return sum(point.before for point in self.judged)

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints; safe for JSON but for NaN and inf among the metrics."""
        return {
            "first_bad": self.first_bad.to_dict() if self.first_bad is not None else None,
            "last_good": self.last_good.to_dict(),
            "suspects": [point.to_dict() for point in self.suspects],
            "evaluations": self.evaluations,
            "reused": self.reused,
            "skipped": self.skipped,
            "turns": self.turns,
            "line": [point.to_dict() for point in self.line],
        }

    def __repr__(self) -> str:
        first = self.first_bad
        told = f"first bad {first.model}@{first.name}" if first is not None else "it cannot be told"
        return f"<Bisection of {len(self.line) - 1} versions: {told}; {self.evaluations} evaluations>"


def bisect(
    session: Session,
    good: VersionRow,
    line: Sequence[VersionRow],
    judge: Judge,
    kept: Verdicts,
    *,
    check_ends: bool = False,
    foreknown: Judge | None = None,
    told: Callable[[Trial], object] | None = None,
) -> Bisection:
    """Find the first bad version of `line`, whose last is bad and before whose first `good` is.

    `foreknown` tells of versions what costs nothing to know (`skip`: nothing): it is asked of the ends,
    of those whose verdict is kept, which it outweighs, and, in the end, of all. `check_ends`: the ends are
    judged first as well. Raises EndsDisagree, and what `judge` raises.
    """
    if foreknown is not None:
        _forget_old_metrics(kept, (good, *line), foreknown)
    run = _Run(session, good, line, judge, kept, told)
    run.require_end(good, "good", foreknown, check=check_ends)
    run.require_end(line[-1], "bad", foreknown, check=check_ends)
    while (number := run.search.next) is not None:
        run.judge(number)
    kept.finish()
    return run.result(foreknown)


def _forget_old_metrics(kept: Verdicts, rows: Sequence[VersionRow], foreknown: Judge) -> None:
    """Metrics are judged as they are now, whatever they were, or were not, at an earlier call."""
    visible = {row.id.hex: row for row in rows if row.state == "visible"}

    def stale(judged: Judged) -> bool:
        if (row := visible.get(judged.version)) is None:
            return False
        now = foreknown(row)
        if now.verdict == "skip":
            return not judged.ran
        return (now.verdict, now.reason) != (judged.verdict, judged.reason)

    kept.forget(stale)


class _Run:
    def __init__(
        self,
        session: Session,
        good: VersionRow,
        line: Sequence[VersionRow],
        judge: Judge,
        kept: Verdicts,
        told: Callable[[Trial], object] | None,
    ) -> None:
        self._session, self._good, self._line = session, good, line
        self._judge, self._kept, self._told = judge, kept, told
        self._ran = 0
        self.search = Search(len(line))
        known = {judged.version: judged for judged in kept.judged}
        self._known = known
        for number, row in enumerate(line[:-1]):
            if (judged := known.get(row.id.hex)) is not None:
                self.search.take(number, judged.verdict)
            elif row.state != "visible":
                self.search.verdicts[number] = "skip"
        # The skips of earlier calls are no skips in a row.
        self.search.rest()

    def require_end(self, row: VersionRow, said: Verdict, foreknown: Judge | None, *, check: bool) -> None:
        """Hold what was said of an end against what is known of it, by an earlier call too, or is found."""
        opinion = foreknown(row) if foreknown is not None else None
        if opinion is None or opinion.verdict == "skip":
            if (judged := self._known.get(row.id.hex)) is not None:
                opinion = Opinion(judged.verdict, judged.reason, judged.seconds, judged.ran)
            elif check:
                opinion = self._ask(row)
        if opinion is None or opinion.verdict in (said, "skip"):
            return
        # Other ends are another question, and that is what is advised: nothing is left unfinished.
        self._kept.finish()
        name = f"{queries.model_name(self._session.catalog.connection, row.model)}@{row.name}"
        raise EndsDisagree(
            version=name, said=said, found=opinion.verdict, reason=opinion.reason or "judged so"
        )

    def judge(self, number: int) -> None:
        row = self._line[number]
        self.search.take(number, self._ask(row, self.search.steps_left - 1).verdict)

    def _ask(self, row: VersionRow, steps_left: int = 0) -> Opinion:
        suspects = len(self.search.suspects)
        trial = Trial(self._point(row), len(self._kept.judged) + 1, max(steps_left, 0), suspects)
        if self._told is not None:
            self._told(trial)
        opinion = self._judge(row)
        self._ran += opinion.ran
        at = timestamp(datetime.now(UTC))
        judged = Judged(
            row.id.hex,
            opinion.verdict,
            opinion.reason,
            opinion.seconds,
            opinion.ran,
            at,
            cause=opinion.cause,
            timeout=opinion.timeout,
        )
        self._kept.add(judged)
        self._known[row.id.hex] = judged
        if self._told is not None:
            self._told(Trial(self._point(row), trial.number, trial.steps_left, suspects, opinion))
        return opinion

    # --- what is told ---------------------------------------------------------------------------

    def result(self, foreknown: Judge | None) -> Bisection:
        line = [self._point(self._good, "good"), *map(self._point, self._line[:-1])]
        line.append(self._point(self._line[-1], "bad"))
        by_id = {row.id.hex: row for row in (self._good, *self._line)}
        return Bisection(
            line=tuple(line),
            suspects=tuple(line[number + 1] for number in self.search.suspects),
            evaluations=self._ran,
            judged=tuple(
                self._point(by_id[each.version]) for each in self._kept.judged if each.version in by_id
            ),
            turns=self._turns(foreknown),
        )

    def _turns(self, foreknown: Judge | None) -> int | None:
        """How often the verdict changes along the line; None unless all that can be judged are known."""
        if foreknown is None or len(self._line) > _LOOKED_THROUGH:
            return None
        rows = [row for row in (self._good, *self._line) if row.state == "visible"]
        verdicts = [foreknown(row).verdict for row in rows]
        if "skip" in verdicts:
            return None
        return sum(a != b for a, b in pairwise(verdicts))

    def _point(self, row: VersionRow, said: Verdict | None = None) -> Point:
        connection = self._session.catalog.connection
        metrics = load_metrics(self._session.record(row).metrics)
        for annotation in queries.annotations_of(connection, row.seq):
            metrics.update(load_metrics(annotation.metrics))
        model = queries.model_name(connection, row.model)
        found = self._known.get(row.id.hex)
        if found is None and said is None and row.state != "visible":
            found = Judged(row.id.hex, "skip", "it was deleted", ran=False)
        if found is None or (said is not None and found.verdict == "skip"):
            reason = "as was said" if said is not None else ""
            if found is not None:
                reason += "; it could not be tested" + (f": {found.reason}" if found.reason else "")
            return Point(row.id, model, row.name, row.created_at, metrics, said, reason)
        return Point(
            row.id,
            model,
            row.name,
            row.created_at,
            metrics,
            verdict=found.verdict,
            reason=found.reason,
            seconds=found.seconds,
            ran=found.ran,
            before=found.before,
        )
