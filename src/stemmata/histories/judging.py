"""Judging: whether a version is good. Owns what an exit status means, and what stored metrics tell.

An exit status means what it means to `git bisect run`: 0 good, 125 cannot be tested, 1 to 127 bad, more
than that ends the search. 126 and 127, by which a shell says that it cannot run a command, are held against
the good version first, if no other status has been seen: a command that does not run there either is no
verdict.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stemmata import gating
from stemmata.catalog import queries
from stemmata.catalog.queries import VersionRow
from stemmata.errors import Damage, InvalidArgument, VersionNotFound
from stemmata.gating import Check, Requirement
from stemmata.histories import running
from stemmata.histories.bisection import Judge, Opinion
from stemmata.histories.problems import EvaluationFailed
from stemmata.histories.searching import Verdict
from stemmata.histories.verdicts import Verdicts
from stemmata.session import Session

PLACEHOLDER = "{}"
_SKIP, _CANNOT, _MOST = 125, (126, 127), 127


def of_metrics(session: Session, requirements: Sequence[Requirement]) -> Judge:
    """What the stored metrics tell: good if all that is required holds, bad if something does not or is NaN,
    as a loss that diverged; skip where something is missing."""

    def judge(row: VersionRow) -> Opinion:
        verdict = gating.judge(session.catalog.connection, row, requirements)
        failed = [check for check in verdict.failed if check.told or _is_nan(check, row)]
        if failed:
            return Opinion("bad", "; ".join(check.reason for check in failed), ran=False)
        untold = [check.reason for check in verdict.failed]
        if untold:
            return Opinion("skip", "; ".join(untold), ran=False)
        return Opinion("good", "what is required holds", ran=False)

    return judge


def _is_nan(check: Check, row: VersionRow) -> bool:
    """Whether a requirement cannot be told for nothing but the version's own metrics that are NaN."""
    untold = [each for each in check.comparisons if each.holds is None]
    return bool(untold) and all(
        any(t.version == row.id and isinstance(t.value, float) and math.isnan(t.value) for t in each.terms)
        for each in untold
    )


def metrics_first(session: Session, stored: Judge, run: Judge) -> Judge:
    """Where stored metrics do not tell, `run` is asked; if all is well, they are again: it may have added
    some."""

    def judge(row: VersionRow) -> Opinion:
        known = stored(row)
        if known.verdict != "skip":
            return known
        ran = run(row)
        if ran.verdict != "good":
            return ran
        session.refresh()
        after = stored(row)
        return Opinion(after.verdict, after.reason, ran.seconds)

    return judge


class CommandJudge:
    """Runs a command for a version and reads its exit status.

    `folder` gives the version's files as a folder; None: nothing is checked out. `failure_is`: what a status
    of 1 to 127 means, where another judge says what is good.
    """

    def __init__(
        self,
        session: Session,
        command: Sequence[str],
        good: VersionRow,
        kept: Verdicts,
        *,
        folder: Callable[[VersionRow], Path] | None,
        timeout: float | None = None,
        timeout_is: Verdict = "skip",
        failure_is: Verdict = "bad",
    ) -> None:
        if folder is None and any(PLACEHOLDER in word for word in command):
            reason = f"the command names {PLACEHOLDER}, the folder of the version's files"
            raise InvalidArgument(argument="checkout", reason=reason)
        self._session, self._command, self._good, self._kept = session, list(command), good, kept
        self._folder, self._timeout = folder, timeout
        self._timeout_is, self._failure_is = timeout_is, failure_is
        self._runs = any(each.ran for each in kept.judged)
        """Whether it has been seen that the command can be run at all."""

    def __call__(self, row: VersionRow) -> Opinion:
        try:
            outcome = self._run(row)
        except Damage as error:
            return Opinion("skip", f"its files cannot be read: {error}", ran=False, cause="lost")
        except VersionNotFound as error:
            # Deleted by somebody since.
            return Opinion("skip", str(error.data["reason"]), ran=False, cause="lost")
        if outcome.status is None:
            reason = f"it took longer than {self._timeout:g} seconds"
            return Opinion(self._timeout_is, reason, outcome.seconds, cause="time", timeout=self._timeout)
        if outcome.status in _CANNOT and not self._runs:
            self._require_that_it_runs(outcome.status)
        self._runs = True
        return Opinion(self._read(outcome.status, row), f"exit status {outcome.status}", outcome.seconds)

    def _read(self, status: int, row: VersionRow) -> Verdict:
        if status > _MOST:
            number = status - running.SIGNALLED
            reason = f"signal {number} ended it" if 0 < number < 65 else "such a status ends the search"
            raise self._failed(status, row, reason)
        return "good" if status == 0 else "skip" if status == _SKIP else self._failure_is

    def _require_that_it_runs(self, status: int) -> None:
        again = self._run(self._good)
        if again.status in _CANNOT:
            words = "is not found" if status == _CANNOT[1] else "cannot be run"
            raise self._failed(status, self._good, f"a shell says so of a command that {words}")

    def _failed(self, status: int, row: VersionRow, reason: str) -> EvaluationFailed:
        count = len(self._kept.judged)
        return EvaluationFailed(status=status, version=self._name(row), reason=reason, count=count)

    def _run(self, row: VersionRow) -> running.Outcome:
        folder = str(self._folder(row)) if self._folder is not None else ""
        command = [word.replace(PLACEHOLDER, folder) for word in self._command]
        return running.run(command, self._environment(row, folder), timeout=self._timeout)

    def _environment(self, row: VersionRow, folder: str) -> Mapping[str, str]:
        found = {
            **os.environ,
            "STEMMATA_VERSION": row.id.hex,
            "STEMMATA_REFERENCE": self._name(row),
            "STEMMATA_PATH": folder,
        }
        if self._session.storage.cache_folder is not None:
            found["STEMMATA_REPO"] = str(Path(self._session.storage.where).absolute())
        return found

    def _name(self, row: VersionRow) -> str:
        return f"{queries.model_name(self._session.catalog.connection, row.model)}@{row.name}"
