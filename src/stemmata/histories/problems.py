"""Problems: what goes wrong where many versions are asked about. Classes of the one tree of errors."""

from __future__ import annotations

from stemmata.errors import Conflict, StemmataError


class NoLine(Conflict):
    kind = "no-line"
    what = "no line leads from {good} to {bad}: {reason}"
    untouched = "nothing was evaluated"
    next_step = "{hint}"


class BisectionUnfinished(Conflict):
    """`kept` is what the other one is: see `verdicts.Question.to_dict`."""

    kind = "bisection-unfinished"
    what = "another bisection of {model} is not finished: {differs}"
    untouched = "its verdicts ({count}) are kept"
    next_step = "go on with that one: {command}; or drop it: --restart"
    unsaid = frozenset({"kept"})


class BisectionBusy(Conflict):
    kind = "bisection-busy"
    what = "another process is bisecting {model}"
    untouched = "nothing was evaluated"
    next_step = "wait for it, or end it"


class EndsDisagree(Conflict):
    kind = "ends-disagree"
    what = "{version} was said to be {said}, and it is {found}: {reason}"
    untouched = "the search was not begun"
    next_step = "name another version there, or look at what the evaluation tells; --restart judges anew"


class EvaluationFailed(StemmataError):
    kind = "evaluation-failed"
    what = "the command ended with status {status} on {version}: {reason}"
    untouched = "what was judged before is kept ({count})"
    next_step = "mend it, then run the same command line again: it goes on where it stopped"
