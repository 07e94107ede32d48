"""Problems: why a run cannot be made again, or was not. Classes of the one tree of errors."""

from __future__ import annotations

from stemmata.errors import Conflict, UsageProblem


class CannotReproduce(Conflict):
    """`missing`: {what, why} of each thing without which the command cannot be run."""

    kind = "cannot-reproduce"
    what = "{version} cannot be made again: {reason}"
    untouched = "nothing was run"
    next_step = "{hint}"
    unsaid = frozenset({"missing"})


class ReproductionFailed(Conflict):
    kind = "reproduction-failed"
    what = "the run of {version} was not made again: {reason}"
    untouched = "no verdict was given; the work folder is kept: {work}"
    next_step = "{hint}"


class UnknownSetting(UsageProblem):
    kind = "unknown-setting"
    what = "{name!r} is neither a training argument of {version} nor an option of its command"
    untouched = "nothing was run"
    next_step = "{hint}"
