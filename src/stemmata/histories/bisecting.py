"""Bisecting: what is asked of a bisection, whether it can be asked, and who judges. Owns that choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from stemmata import gating
from stemmata.arguments import seconds_of
from stemmata.catalog.queries import VersionRow
from stemmata.errors import InvalidArgument
from stemmata.gating import Requirement
from stemmata.histories import bisection, judging, path, verdicts
from stemmata.histories.bisection import Bisection, Judge, Trial
from stemmata.histories.bisection import Opinion as Opinion
from stemmata.histories.searching import Verdict
from stemmata.histories.verdicts import Question, Verdicts
from stemmata.session import Session

_NOTHING = "give a function or a command, or what to require"


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a bisection shall go; see `Comparing.bisect`."""

    command: tuple[str, ...]
    judge: Judge | None
    require: tuple[Requirement, ...]
    timeout: float | None
    timeout_is: Verdict
    by: str
    run: str | None
    check_ends: bool
    checkout: bool
    keep_as: str | None
    restart: bool

    @classmethod
    def of(
        cls,
        command: Sequence[str] | None,
        *,
        judge: Judge | None,
        require: str | Sequence[str],
        timeout: float | None,
        timeout_is: str,
        by: str,
        run: str | None,
        check_ends: bool,
        checkout: bool,
        keep_as: str | None,
        restart: bool,
    ) -> Self:
        """Raises InvalidArgument, InvalidExpression for what cannot be asked, before anything is judged."""
        words = _words_of(command)
        required = gating.requirements_of([require] if isinstance(require, str) else require)
        if not words and judge is None and not required:
            raise InvalidArgument(argument="test", reason=_NOTHING)
        seconds_of("timeout", timeout)
        if timeout_is not in ("skip", "bad"):
            raise InvalidArgument(argument="timeout_is", reason=f"{timeout_is!r} is neither 'skip' nor 'bad'")
        if not words and (timeout is not None or not checkout):
            argument = "timeout" if timeout is not None else "checkout"
            raise InvalidArgument(argument=argument, reason="it goes with a command, and none is given")
        if by not in ("parents", "time"):
            raise InvalidArgument(argument="by", reason=f"{by!r} is neither 'parents' nor 'time'")
        if run is not None and by != "time":
            raise InvalidArgument(argument="run", reason="it goes with the order of time: by 'time'")
        return cls(
            command=words,
            judge=judge,
            require=tuple(required),
            timeout=timeout,
            timeout_is=cast("Verdict", timeout_is),
            by=by,
            run=run,
            check_ends=check_ends,
            checkout=checkout,
            keep_as=keep_as,
            restart=restart,
        )

    def question(self, session: Session, good: VersionRow, bad: VersionRow) -> Question:
        return verdicts.question(
            session,
            good,
            bad,
            command=self.command,
            require=[each.text for each in self.require],
            asked=self.keep_as or "",
            by=self.by,
            run=self.run,
        )


def bisect(
    session: Session,
    good: VersionRow,
    bad: VersionRow,
    wanted: Wanted,
    folder: Callable[[VersionRow], Path],
    told: Callable[[Trial], object] | None,
) -> Bisection:
    """Find the first bad version; `folder` gives the files of one. Raises as `Comparing.bisect` says."""
    if wanted.by == "time":
        line = path.by_time(session, good, bad, wanted.run)
    else:
        line = path.by_parents(session, good, bad)
    stored = judging.of_metrics(session, wanted.require) if wanted.require else None
    keeping: AbstractContextManager[Verdicts]
    if wanted.command or wanted.keep_as is not None:
        question = wanted.question(session, good, bad)
        keeping = verdicts.verdicts(session, bad, question, restart=wanted.restart)
    else:
        keeping = nullcontext(Verdicts(None))
    with keeping as kept:
        kept.reconsider(wanted.timeout, wanted.timeout_is)
        judge = wanted.judge
        if wanted.command:
            judge = judging.CommandJudge(
                session,
                wanted.command,
                good,
                kept,
                folder=folder if wanted.checkout else None,
                timeout=wanted.timeout,
                timeout_is=wanted.timeout_is,
                failure_is="skip" if stored is not None else "bad",
            )
        if stored is not None:
            judge = judging.metrics_first(session, stored, judge) if judge is not None else stored
        if judge is None:
            raise InvalidArgument(argument="test", reason=_NOTHING)
        return bisection.bisect(
            session, good, line, judge, kept, check_ends=wanted.check_ends, foreknown=stored, told=told
        )


def _words_of(command: Sequence[str] | None) -> tuple[str, ...]:
    """A command as its words; none for None. Raises InvalidArgument."""
    if command is None:
        return ()
    if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
        reason = "a command is a list of words, such as ['python', 'eval.py', '{}']"
        raise InvalidArgument(argument="test", reason=reason)
    return tuple(command)
