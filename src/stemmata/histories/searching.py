"""Searching: which version to judge next, and what is known then. Owns the search alone; runs nothing.

Versions are numbers in the order of their line: 0 comes right after the one that is good, the last is bad.
What cannot be judged is skipped as `git bisect` does: another is tried, further off with each skip in a
row, for what is broken mostly lies side by side.
"""

from __future__ import annotations

from typing import Literal

Verdict = Literal["good", "bad", "skip"]


class Search:
    """The first bad version of `count`, of which the last is bad."""

    def __init__(self, count: int) -> None:
        self.verdicts: dict[int, Verdict] = {}
        self._skips_in_a_row = 0
        self.low = -1
        """The last one that is known to be good; -1: none of these."""
        self.high = count - 1
        """The first one that is known to be bad."""

    def take(self, number: int, verdict: Verdict) -> None:
        """What was found of one. What contradicts the rest, as a good one after a bad one, changes
        nothing."""
        self.verdicts[number] = verdict
        if verdict == "skip":
            self._skips_in_a_row += 1
            return
        self._skips_in_a_row = 0
        if verdict == "good" and self.low < number < self.high:
            self.low = number
        elif verdict == "bad" and self.low < number < self.high:
            self.high = number

    def rest(self) -> None:
        """What comes next is no skip in a row: these were known before."""
        self._skips_in_a_row = 0

    @property
    def open(self) -> list[int]:
        """Those that can still be the first bad one, and may be judged."""
        return [n for n in range(self.low + 1, self.high) if n not in self.verdicts]

    @property
    def suspects(self) -> list[int]:
        """Those of which one is the first bad one: one alone once it is found."""
        return list(range(self.low + 1, self.high + 1))

    @property
    def next(self) -> int | None:
        """The one to judge now; None once there is nothing to judge."""
        choices = self.open
        if not choices:
            return None
        wanted = (self.low + self.high) // 2
        if self._skips_in_a_row > 1:
            # 1, -1, 2, -2, 4, -4, … beside the middle.
            away = 1 << min((self._skips_in_a_row - 1) // 2, 40)
            wanted += away if self._skips_in_a_row % 2 else -away
        return min(choices, key=lambda n: (abs(n - wanted), n))

    @property
    def steps_left(self) -> int:
        """How many more are judged at most, if none is skipped."""
        return (self.high - self.low - 1).bit_length()
