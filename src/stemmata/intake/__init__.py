"""Intake: versions from folders that others wrote: Trainers, the tutorial's layout, PEFT, anyone.

`found` says what a folder holds and what of it is complete, `taking` makes versions of it,
`watching` looks again and again. Nothing in a folder is changed, nothing unpickled.
"""

from stemmata.intake.found import Found, find
from stemmata.intake.taking import Outcome, import_folders
from stemmata.intake.watching import Watcher

__all__ = ["Found", "Outcome", "Watcher", "find", "import_folders"]
