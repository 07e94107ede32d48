"""Verdicts: whether a model that was made again is the one that it was. Owns the kinds, and when each holds.

    bit-identical      every tensor has the same digest, and every file that a load reads means the same
    within-tolerance   some tensors differ, each element by no more than its type's stated tolerance
    diverged           anything else that was compared
    losses-agree       with `steps` alone: not both have weights of that step; every logged loss is equal
    undecided          with `steps` alone: nothing up to that step could be compared
    not-run            there is no copy

A cause is named only where the two captures tell something differently; with nothing recorded it is unknown
(ADR 049). Runs nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stemmata.capturing import Captured
from stemmata.compare.tensors import compare_files
from stemmata.errors import InvalidArgument
from stemmata.records import store_number
from stemmata.reproducing import causes, closeness, otherfiles, steps
from stemmata.reproducing.causes import Recorded
from stemmata.reproducing.closeness import Closeness, Deviation, Given, Tolerance
from stemmata.reproducing.otherfiles import FileDifference
from stemmata.reproducing.recorded import Difference
from stemmata.reproducing.steps import Losses
from stemmata.reproducing.words import Line, lines_of, summary_of
from stemmata.version import Version

Kind = Literal["bit-identical", "within-tolerance", "diverged", "losses-agree", "undecided", "not-run"]
REPRODUCED = frozenset({"bit-identical", "within-tolerance", "losses-agree"})
FORMAT = 1
LISTED = 50
"""Deviations and differences of one sort that a stored verdict lists; more are counted."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions."""

    id: str
    model: str
    name: str
    step: int | None

    @classmethod
    def of(cls, version: Version) -> Side:
        return cls(version.id.hex, version.model, version.name, version.step)

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "model": self.model, "name": self.name, "step": self.step}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of making a version again, and what may be why. True where it was reproduced."""

    kind: Kind
    original: Side
    again: Side | None
    steps: int | None = None
    """Only this many first steps were judged; None: the whole."""
    weights: Closeness | None = None
    """None where no weights were compared."""
    files: tuple[FileDifference, ...] = ()
    """Files without weights that differ; those that `matters` make another model."""
    losses: Losses = field(default_factory=Losses)
    recorded: Recorded = field(default_factory=Recorded)
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    """By type of tensor."""
    notes: tuple[str, ...] = ()
    why: str = ""
    """Of one that was not run or is undecided: why."""

    def __bool__(self) -> bool:
        return self.kind in REPRODUCED

    @property
    def causes(self) -> tuple[Difference, ...]:
        """Recorded differences that may be why it is not bit for bit the same, the likeliest first. Empty for
        a cause that is unknown, and where there is nothing to explain."""
        return self.recorded.causes if self._is_other else ()

    @property
    def harmless(self) -> tuple[Difference, ...]:
        """Recorded differences that did not matter: the same came of it all the same."""
        decided = self.kind in REPRODUCED or self.kind == "diverged"
        return self.recorded.causes if decided and not self._is_other else ()

    @property
    def others(self) -> tuple[Difference, ...]:
        """Recorded differences where nothing was decided."""
        return self.recorded.causes if self.kind in ("undecided", "not-run") else ()

    @property
    def cause_unknown(self) -> bool:
        return self._is_other and not self.causes

    @property
    def _is_other(self) -> bool:
        """Whether there is anything to explain: an evaluation's loss may differ of the very same weights."""
        if self.kind == "bit-identical":
            return self.losses.first is not None
        return self.kind in ("within-tolerance", "diverged")

    @property
    def first_step(self) -> int | None:
        """The first logged step whose loss differs; None where none does, or none was logged."""
        return self.losses.first.step if self.losses.first is not None else None

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Tensors that differ: what cannot be compared first, then the largest."""
        return self.weights.deviations if self.weights is not None else ()

    @property
    def summary(self) -> str:
        """One line."""
        return summary_of(self)

    def lines(self) -> list[Line]:
        """All of it for people: title, text and tone of each line."""
        return lines_of(self)

    def __str__(self) -> str:
        return "\n".join(f"{line.title}: {line.text}" if line.title else line.text for line in self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Stable JSON (FORMAT.md, section 7): what `--json` prints and what is kept."""
        found = self.recorded
        return {
            "format": FORMAT,
            "verdict": self.kind,
            "reproduced": bool(self),
            "original": self.original.to_dict(),
            "again": self.again.to_dict() if self.again is not None else None,
            "steps": self.steps,
            "why": self.why,
            "first_step": self.first_step,
            "losses": self.losses.to_dict(),
            "weights": _weights(self.weights),
            "tolerances": {word: {"rtol": t.rtol, "atol": t.atol} for word, t in self.tolerances.items()},
            "files": _listed(self.files),
            "causes": _listed(self.causes),
            "cause_unknown": self.cause_unknown,
            "did_not_matter": _listed(self.harmless),
            "recorded": _listed(self.others),
            "aside": _listed(found.aside),
            "uncompared": list(found.uncompared),
            "notes": list(self.notes),
        }

    def annotation(self) -> dict[str, Any]:
        """What an annotation says of it in the log, for good: no value and no name that might be a secret."""
        largest = [each.largest for each in self.deviations if each.largest is not None]
        said = {
            "steps": self.steps,
            "first_step": self.first_step,
            "largest": store_number(max(largest)) if largest else None,
            "causes": list(dict.fromkeys(each.kind for each in self.causes)),
        }
        return {"verdict": self.kind, **{k: v for k, v in said.items() if v is not None}}


def _weights(found: Closeness | None) -> dict[str, Any] | None:
    if found is None:
        return None
    within = sum(each.within for each in found.deviations)
    counts = {"same": found.same, "within": within, "beyond": len(found.deviations) - within}
    return {**counts, "bytes_read": found.read, "deviations": _listed(found.deviations)}


def _listed(found: tuple[Any, ...]) -> dict[str, Any]:
    return {"count": len(found), "listed": [each.to_dict() for each in found[:LISTED]]}


def judge(
    original: Version,
    again: Version | None,
    *,
    before: Captured | None,
    after: Captured | None,
    steps: int | None = None,
    rtol: Given = None,
    atol: Given = None,
    why: str = "",
) -> Verdict:
    """Whether `again`, which may lie in another repository, is `original` made again.

    `before` and `after` are what was captured with each. `steps`: judge the first steps alone, by the losses
    that were logged and, where both runs have a version of that very step, by its weights. `rtol` and `atol`:
    a tolerance of all floats, or by type (`F32` or `float32`); by default that of `torch.testing`. `why`: why
    there is no copy.

    Weights are read only where digests differ, in pieces. Raises InvalidArgument, Damage.
    """
    if steps is not None and steps < 1:
        raise InvalidArgument(argument="steps", reason=f"{steps} is less than one step")
    allowed = closeness.tolerances_of(rtol, atol)
    found = causes.recorded(original, again, before, after)
    if again is None:
        return Verdict(
            "not-run", Side.of(original), None, steps, recorded=found, why=why or "no copy was made"
        )
    if steps is not None:
        return _judge_steps(original, again, steps, found, allowed)
    weights, files = _compared(original, again, allowed)
    return Verdict(
        _kind(weights, files),
        Side.of(original),
        Side.of(again),
        None,
        weights,
        files,
        _losses(original, again, original.step),
        found,
        _used(weights, allowed),
        tuple(_notes(original, again, weights)),
    )


def _judge_steps(
    original: Version, again: Version, until: int, found: Recorded, allowed: Mapping[str, Tolerance]
) -> Verdict:
    losses = _losses(original, again, until)
    notes: tuple[str, ...] = ()
    weights: Closeness | None = None
    files: tuple[FileDifference, ...] = ()
    kind: Kind
    pair = steps.version_at(original, until), steps.version_at(again, until)
    if pair[0] is not None and pair[1] is not None:
        weights, files = _compared(pair[0], pair[1], allowed)
        notes = tuple(_notes(pair[0], pair[1], weights))
        kind = _kind(weights, files)
    elif losses.problem:
        kind = "undecided"
    else:
        kind = "diverged" if losses.first is not None else "losses-agree"
    if losses.last is not None and losses.last < until:
        notes += (f"the last loss that both logged is that of step {losses.last:,}",)
    return Verdict(
        kind,
        Side.of(original),
        Side.of(again),
        until,
        weights,
        files,
        losses,
        found,
        _used(weights, allowed),
        notes,
        why=losses.problem if kind == "undecided" else "",
    )


def _compared(
    a: Version, b: Version, allowed: Mapping[str, Tolerance]
) -> tuple[Closeness, tuple[FileDifference, ...]]:
    files = compare_files(a.tree(), b.tree())
    weights = closeness.measure(a, b, files, allowed)
    return weights, tuple(otherfiles.differences(files, a.read, b.read))


def _kind(weights: Closeness, files: tuple[FileDifference, ...]) -> Kind:
    if not weights.within or any(each.matters for each in files):
        return "diverged"
    return "within-tolerance" if weights.deviations else "bit-identical"


def _losses(original: Version, again: Version, until: int | None) -> Losses:
    return steps.compare_losses(steps.history(original), steps.history(again), until)


def _used(weights: Closeness | None, allowed: Mapping[str, Tolerance]) -> dict[str, Tolerance]:
    """The tolerances of the types that differ."""
    types = {each.dtype for each in weights.deviations if not each.why} if weights is not None else set()
    return {word: allowed[word] for word in allowed if word in types}


def _notes(a: Version, b: Version, weights: Closeness) -> Iterator[str]:
    if a.step != b.step and a.step is not None and b.step is not None:
        yield f"the copy is of step {b.step:,}, the original of step {a.step:,}"
    if not weights.same and not weights.deviations:
        yield "neither holds any weights: only their other files were compared"
