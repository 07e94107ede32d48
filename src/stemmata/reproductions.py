"""Reproductions: what came of making a version again, as its annotations keep it. Owns how they say it.

`details` of the annotation holds `{"reproduced": {"verdict", "steps", "first_step", "largest", "causes",
"object"}}`; the object of that kind, `reproduction#<n>`, is the whole verdict in JSON. What may have to be
erased (values of variables, names of files) stands in the object alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stemmata.catalog.queries import AnnotationRow
from stemmata.records import load_value

DETAIL = "reproduced"
OBJECT = "reproduction"
EVENT = "reproduce"
REPEATS, CHANGED, REPETITION = "repeats", "changed", "repetition"
"""Labels of a version of a run that repeats another one with a change: which version's, the change, and a
word of that one repetition, for another may be under way at the same time."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """One verdict that was kept. `at` is RFC 3339 in UTC."""

    verdict: str
    """bit-identical, within-tolerance, diverged, losses-agree, undecided or not-run."""
    at: str
    by: str
    why: str = ""
    steps: int | None = None
    """Only so many first steps were judged."""
    first_step: int | None = None
    """The first logged step whose loss differed."""
    largest: float | None = None
    """The largest deviation of an element."""
    causes: tuple[str, ...] = ()
    """Kinds of recorded differences that may be why, the likeliest first; none: it is unknown."""
    object: str | None = None
    """What the whole verdict is attached as: `Version.provenance` gives it."""

    def __str__(self) -> str:
        told = self.verdict if self.steps is None else f"{self.verdict} over the first {self.steps:,} steps"
        if self.first_step is not None:
            told += f", the loss from step {self.first_step:,} on"
        if self.verdict in ("diverged", "within-tolerance"):
            told += f"; likely cause: {self.causes[0]}" if self.causes else "; cause unknown"
        return told

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "at": self.at,
            "by": self.by,
            "why": self.why,
            "steps": self.steps,
            "first_step": self.first_step,
            "largest": self.largest,
            "causes": list(self.causes),
            "object": self.object,
        }


def reproductions_of(annotations: Iterable[AnnotationRow]) -> list[Reproduction]:
    """Those that a version's annotations tell of, oldest first; what is ill-formed counts as unsaid."""
    found = []
    for each in annotations:
        said = each.details.get(DETAIL)
        if isinstance(said, dict) and isinstance(said.get("verdict"), str):
            found.append(_reproduction(each, said))
    return found


def _reproduction(annotation: AnnotationRow, said: dict[str, Any]) -> Reproduction:
    causes, kind = said.get("causes"), said.get("object")
    largest = said.get("largest")
    number = load_value(largest) if isinstance(largest, str | float | int) else None
    return Reproduction(
        verdict=said["verdict"],
        at=annotation.at,
        by=annotation.by,
        why=annotation.why,
        steps=_count(said.get("steps")),
        first_step=_count(said.get("first_step")),
        largest=float(number) if isinstance(number, int | float) else None,
        causes=tuple(c for c in causes if isinstance(c, str)) if isinstance(causes, list) else (),
        object=kind if isinstance(kind, str) and kind in annotation.objects else None,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
