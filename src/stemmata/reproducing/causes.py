"""Causes: what two captures record differently, the likeliest cause of other weights first.

Owns the order, and what counts as recorded. Nothing is guessed: what was not captured on both sides is no
difference, and is listed as not compared. Of one change that shows in several places (a seed in the
arguments, in the generators) the most telling one is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stemmata.capturing import Captured
from stemmata.records import Value
from stemmata.reproducing import computing, making
from stemmata.reproducing.recorded import Difference
from stemmata.version import Version

_PARTS = (
    "seeds",
    "data",
    "base",
    "code",
    "training_arguments",
    "trainer",
    "packages",
    "environment",
    "command",
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is recorded differently. `causes`: what may have changed the weights, ranked; `aside`: what cannot
    have; `uncompared`: what was not recorded on both sides, and why."""

    causes: tuple[Difference, ...] = ()
    aside: tuple[Difference, ...] = ()
    uncompared: tuple[str, ...] = ()


def recorded(
    original: Version, again: Version | None, before: Captured | None, after: Captured | None
) -> Recorded:
    """From both captures, and from the settings that both versions hold."""
    found = [*_of_captures(before, after)]
    if again is not None:
        found += _of_versions(original, again, before, after)
    # A seed is in the arguments, in the settings and among the seeds: told once.
    found = list({(d.kind, d.name): d for d in reversed(found)}.values())
    found.sort(key=lambda d: (d.rank, d.kind, d.name))
    return Recorded(
        tuple(d for d in found if not d.aside),
        tuple(d for d in found if d.aside),
        () if again is None and after is None else tuple(_uncompared(before, after)),
    )


def is_nothing(captured: Captured | None) -> bool:
    """Whether a capture holds no part at all."""
    return captured is None or all(getattr(captured, part) is None for part in _PARTS)


def _of_captures(a: Captured | None, b: Captured | None) -> Iterator[Difference]:
    if a is None or b is None:
        return
    torch_told = False
    for part, compare in _COMPARED:
        left, right = getattr(a, part), getattr(b, part)
        if left is not None and right is not None:
            for each in compare(left, right):
                torch_told |= each.kind == "package" and each.name == "torch"
                yield each
    if a.command is not None and b.command is not None:
        roots = (a.code.root if a.code else "", b.code.root if b.code else "")
        yield from making.command(a.command, b.command, roots)
    if a.environment is not None and b.environment is not None:
        yield from computing.machine(a.environment, b.environment, torch_told)


_COMPARED: tuple[tuple[str, Callable[[Any, Any], Iterator[Difference]]], ...] = (
    ("seeds", making.seeds),
    ("seeds", computing.switches),
    ("data", making.data),
    ("base", making.base),
    ("code", making.code),
    ("training_arguments", making.arguments),
    ("trainer", making.classes),
    ("packages", computing.packages),
)


def _of_versions(
    original: Version, again: Version, a: Captured | None, b: Captured | None
) -> Iterator[Difference]:
    """Settings and data that the records hold and the captures do not."""
    yield from making.base_of_adapter(original.base, again.base)
    told: set[str] = set()
    if (
        a is not None
        and b is not None
        and a.training_arguments is not None
        and b.training_arguments is not None
    ):
        told = {*a.training_arguments, *b.training_arguments}
    yield from making.arguments(_without(original.config, told), _without(again.config, told))
    if a is None or b is None or a.data is None or b.data is None:
        rows = [{k: v for k, v in each.data.items() if k.endswith(".rows")} for each in (original, again)]
        for name in sorted(rows[0].keys() & rows[1].keys()):
            if rows[0][name] != rows[1][name]:
                yield making.row_count(name, rows[0][name], rows[1][name])


def _without(config: Mapping[str, Value], told: set[str]) -> dict[str, Value]:
    return {key: value for key, value in config.items() if key.partition(".")[0] not in told}


def _uncompared(a: Captured | None, b: Captured | None) -> Iterator[str]:
    sides = [who for who, side in (("the original", a), ("the copy", b)) if is_nothing(side)]
    if sides:
        yield f"nothing was captured with {' and '.join(sides)}: nothing recorded could be compared"
        return
    for part in _PARTS:
        name = part.replace("_", " ")
        lacking = [who for who, side in (("original", a), ("copy", b)) if getattr(side, part) is None]
        if len(lacking) == 1:
            yield f"{name}: {_why(part, a if lacking == ['original'] else b, lacking[0])}"
    yield from _gaps(a, b)


def _gaps(a: Captured | None, b: Captured | None) -> Iterator[str]:
    """What a part that was captured lacks: a change there would be no recorded one."""
    told: set[str] = set()
    for side in (a, b):
        for part in (side.data, side.base, side.code, side.environment) if side is not None else ():
            for reason in part.missing if part is not None else ():
                if reason.what not in told:
                    told.add(reason.what)
                    yield f"{reason.what}: {reason.why}"


def _why(part: str, captured: Captured | None, who: str) -> str:
    for reason in captured.missing if captured is not None else ():
        if reason.what == part:
            return f"of the {who} {reason.why}"
    return f"not captured with the {who}"
