"""Reproducing: a version made again from what was captured, and whether it is the same.

    redoing       the order of it all: plan, restore, run, match, judge, keep; a repetition with a change
    planning      what is restored, from where, and what is missing: sources, cells, inputs, commands,
                  changing, options, surroundings
    places        the work folder's layout
    moments       the repository as the run found it
    holding       what it found, kept from collections while the run is made again
    launching     the command, in its environment
    counterparts  which version stands for which
    verdicts      the kinds of verdict, and `judge`
    closeness     weights, tensor by tensor, against a tolerance
    otherfiles    files that hold no weights
    steps         the losses that both runs logged
    causes        what both captures record differently: making, computing, recorded
    words         a verdict in English
    storing       a verdict as an annotation of the version
    problems      why a run cannot be made again

Kept verdicts are read back by `Version.reproductions`.
"""

from stemmata.reproducing.causes import Recorded
from stemmata.reproducing.closeness import Closeness, Deviation, Tolerance
from stemmata.reproducing.recorded import Difference
from stemmata.reproducing.storing import keep
from stemmata.reproducing.verdicts import Verdict, judge

__all__ = ["Closeness", "Deviation", "Difference", "Recorded", "Tolerance", "Verdict", "judge", "keep"]
