"""Checking: every byte of a repository held against what the log says of it.

Reads past every cache: the log entry by entry, bundles, packs whole, every object decoded, every
version's record, tree and files. Changes nothing but one thing: a cached catalog that disagrees with
the log is thrown away (I8).
"""

from stemmata.checking.extent import LEVELS, Level
from stemmata.checking.report import Affected, Counts, Note, Problem, Report
from stemmata.checking.run import check

__all__ = ["LEVELS", "Affected", "Counts", "Level", "Note", "Problem", "Report", "check"]
