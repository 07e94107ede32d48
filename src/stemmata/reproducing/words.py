"""Words: a verdict in English, line by line. Owns what is said first and what is counted; no terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from stemmata.records import Value
    from stemmata.reproducing.closeness import Deviation
    from stemmata.reproducing.recorded import Difference
    from stemmata.reproducing.verdicts import Verdict

Tone = Literal["", "good", "bad", "warn", "dim"]
_FEW = 5
_LONGEST = 60


class Line(NamedTuple):
    """One line for people; `title` is empty where it goes on."""

    title: str
    text: str
    tone: Tone = ""


def summary_of(found: Verdict) -> str:
    """The verdict in one line."""
    over = f" over the first {found.steps:,} steps" if found.steps is not None else ""
    if found.kind == "not-run":
        return f"not run: {found.why}"
    if found.kind == "undecided":
        return f"undecided{over}: {found.why}"
    if found.kind == "losses-agree":
        steps = _count(found.losses.compared, "step")
        return f"identical losses{over}: {steps} logged by both, all equal; no weights were compared"
    if found.kind == "bit-identical":
        return f"bit-identical{over}: {_equal(found)}{_cause(found)}"
    word = "within tolerance" if found.kind == "within-tolerance" else "diverged"
    return f"{word}{over}: {_what_differs(found)}{_cause(found)}"


def _cause(found: Verdict) -> str:
    if found.cause_unknown:
        return "; cause unknown"
    return f"; likely cause: {difference_words(found.causes[0])}" if found.causes else ""


def _equal(found: Verdict) -> str:
    weights = found.weights
    if weights is None or not weights.same:
        return "every file has the same digest"
    parts = [_all(weights.same - weights.whole, "tensor"), _all(weights.whole, "file of weights")]
    several = weights.same > 1
    told = f"{' and '.join(filter(None, parts))} {'have' if several else 'has'} the same digest"
    if (first := found.losses.first) is not None:
        told += f"; {first.metric}, logged at step {first.step:,}, differs all the same"
    return told


def _all(number: int, one: str) -> str:
    if number < 2:
        return f"the one {one}" if number else ""
    return f"all {number:,} {_plural(one)}"


def _plural(one: str) -> str:
    """Of `file of weights` the first word."""
    first, blank, rest = one.partition(" ")
    return f"{first}s{blank}{rest}"


def _what_differs(found: Verdict) -> str:
    parts = []
    differing = found.deviations
    if differing and found.weights is not None:
        total = len(differing) + found.weights.same
        what = "tensor" if any(each.tensor for each in differing) else "file of weights"
        share = f"{len(differing):,} of {total:,} {what if total == 1 else _plural(what)}"
        parts.append(f"{share} differ{_s(len(differing))}{_worst(differing)}")
    files = [each.path for each in found.files if each.matters]
    if files:
        named = ", ".join(files[:_FEW]) + (f" and {len(files) - _FEW:,} more" if len(files) > _FEW else "")
        lead = "" if differing or found.weights is None else "the weights are the same, but "
        parts.append(f"{lead}{named} differ{_s(len(files))}")
    if found.first_step is not None:
        parts.append(f"the first loss that differs is that of step {found.first_step:,}")
    return "; ".join(parts)


def _worst(differing: Sequence[Deviation]) -> str:
    measured = [each for each in differing if each.largest is not None]
    if not measured:
        return ""
    worst = max(measured, key=lambda each: each.largest or 0.0)
    return f", the largest by {_number(worst.largest)} ({worst.tensor})"


def lines_of(found: Verdict) -> list[Line]:
    """All that there is to say, the verdict first."""
    tone: Tone = "good" if found else "warn" if found.kind in ("undecided", "not-run") else "bad"
    told = [Line("", found.summary, tone)]
    told += _titled("weights", list(_weights(found)))
    told += _titled("losses", list(_losses(found)))
    told += _titled("files", _few([_file(each.path, each.what, each.why) for each in found.files]), "dim")
    told += _titled("likely causes" if len(found.causes) > 1 else "likely cause", _differences(found.causes))
    if found.cause_unknown:
        why = "nothing that was recorded differs"
        if found.recorded.uncompared:
            why = "nothing that was recorded of both differs"
        told.append(Line("cause", f"unknown: {why}", "warn"))
    told += _titled("did not matter", _differences(found.harmless), "dim")
    told += _titled("recorded", _differences(found.others))
    if not found.harmless:
        told += _titled("not compared", _few(found.recorded.uncompared), "warn")
    if found.recorded.aside:
        names = ", ".join(each.name for each in found.recorded.aside[:_FEW])
        more = len(found.recorded.aside) - _FEW
        told.append(Line("cannot matter", names + (f" and {more:,} more" if more > 0 else ""), "dim"))
    return told + _titled("note", list(found.notes), "warn")


def difference_words(found: Difference) -> str:
    """`seed: 42 → 43`; `package torch: 2.6.0 → 2.7.1`."""
    name = found.name if found.kind == found.name else f"{found.kind} {found.name}"
    return f"{name}: {_value(found.before)} → {_value(found.after)}"


def deviation_words(found: Deviation) -> str:
    """`layer.0.weight: 12 of 256 elements differ, the largest by 0.01 at [3, 4]: 0.5 → 0.51`."""
    name = found.tensor or found.file
    if found.differing is None:
        return f"{name}: {found.why}"
    count = f"{found.differing:,} of {_count(math.prod(found.shape), 'element')}"
    elements = f"{name} ({found.dtype}): {count} differ{_s(found.differing)}"
    at = f" at {list(found.at)}" if found.at is not None else ""
    before, after = _pair(found.before, found.after)
    if found.largest is None:
        return f"{elements}, the first{at}: {before} → {after}; {found.why}"
    largest = f"the largest by {_number(found.largest)}"
    if math.isinf(found.largest):
        largest = "one is no finite number"
    beyond = "" if found.within else f"; {found.beyond:,} beyond the tolerance"
    return f"{elements}, {largest}{at}: {before} → {after}{beyond}"


def _weights(found: Verdict) -> Iterator[str]:
    yield from _few([deviation_words(each) for each in found.deviations])
    for word, tolerance in found.tolerances.items():
        yield f"tolerance of {word}: {tolerance.atol:g} + {tolerance.rtol:g} of the value"


def _losses(found: Verdict) -> Iterator[str]:
    losses = found.losses
    if losses.first is not None:
        before, after = _pair(losses.first.before, losses.first.after)
        yield f"step {losses.first.step:,}: {losses.first.metric} {before} → {after}, the first that differs"
    elif losses.problem and found.kind not in ("not-run", "undecided"):
        yield f"{losses.problem}: no step can be told"
    elif losses.compared and found.kind != "losses-agree":
        steps = "the one step" if losses.compared == 1 else f"all {losses.compared:,} steps"
        yield f"equal at {steps} that both logged"


def _file(path: str, what: str, why: str) -> str:
    words = {"changed": "differs", "added": "only the copy has it", "removed": "the copy lacks it"}[what]
    return f"{path} {words}" + (f": {why}" if why else "")


def _differences(found: Sequence[Difference]) -> list[str]:
    return _few([difference_words(each) for each in found])


def _few(texts: Sequence[str]) -> list[str]:
    return [*texts[:_FEW], *([f"and {len(texts) - _FEW:,} more"] if len(texts) > _FEW else [])]


def _titled(title: str, texts: list[str], tone: Tone = "") -> list[Line]:
    return [Line(title if not place else "", text, tone) for place, text in enumerate(texts)]


def _value(value: Value) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = ", ".join(map(_value, value)) if isinstance(value, list) else str(value)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _number(value: float | int | None) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _pair(before: float | int | None, after: float | int | None) -> tuple[str, str]:
    """Two numbers with as many digits as it takes to tell them apart."""
    for digits in (6, 9, 17):
        shown = [f"{v:.{digits}g}" if isinstance(v, float) else _number(v) for v in (before, after)]
        if shown[0] != shown[1]:
            break
    return shown[0], shown[1]


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}" + ("" if number == 1 else "s")


def _s(number: int) -> str:
    return "s" if number == 1 else ""
