"""Retention: which versions of a model a policy keeps. A pure function over history; deletes nothing.

What is kept is the union of what each rule keeps, what a name points at, and what a kept version is loaded
on. Ages are taken against the model's newest version, and where the times that versions claim contradict
the order in which they were committed, that is held against no version (ADR 025).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from stemmata.errors import InvalidArgument, NothingKept
from stemmata.ids import VersionId
from stemmata.metricnames import Direction

SETTING = "retain"
"""A model's setting: its policy, as `Policy.to_setting` writes it."""

DAY = 86_400
_TOLERATED = DAY
"""Seconds by which versions may be out of order: saves in the background end as they come."""
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": DAY, "w": 7 * DAY, "y": 365 * DAY}
_LENGTH = re.compile(r"([0-9]{1,11}) ?(s|min|h|d|w|y)", re.ASCII)
_BEST = re.compile(r"([1-9][0-9]{0,8})(?::(.+?))?(?::(min|max))?", re.ASCII)
_LONGEST = 1000 * _UNITS["y"]


def seconds_of(argument: str, given: object, *, least: int = 1) -> int:
    """A length of time in seconds, from `"30d"` (s, min, h, d, w, y; 0 needs no unit) or a number.

    Raises InvalidArgument.
    """
    found = _LENGTH.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is not None:
        seconds = int(found[1]) * _UNITS[found[2]]
    elif given == "0":
        seconds = 0
    elif isinstance(given, int) and not isinstance(given, bool):
        seconds = given
    else:
        reason = f"{given!r} is no length of time; write 30d, 12h or 2w"
        raise InvalidArgument(argument=argument, reason=reason)
    if not least <= seconds <= _LONGEST:
        reason = f"{given!r} is not between {least} s and 1000 years"
        raise InvalidArgument(argument=argument, reason=reason)
    return seconds


def length(seconds: int) -> str:
    """`seconds` as `seconds_of` reads it: 1209600 is `2w`."""
    unit = next(u for u in reversed(_UNITS) if seconds % _UNITS[u] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


@dataclass(frozen=True, slots=True)
class Best:
    """The `count` best by a metric; None: by the model's primary metric, which way as declared for it, else
    as its name tells."""

    count: int
    metric: str | None = None
    direction: Direction | None = None

    @classmethod
    def parse(cls, given: object) -> Best:
        """From `"2:eval_loss"`, `"2:eval_f1:max"` or `"2"`. Raises InvalidArgument."""
        found = _BEST.fullmatch(str(given).strip()) if isinstance(given, str | int) else None
        if found is None or isinstance(given, bool):
            reason = f"{given!r} is neither N nor N:metric nor N:metric:max"
            raise InvalidArgument(argument="best", reason=reason)
        way: Direction | None = None if found[3] is None else "min" if found[3] == "min" else "max"
        return cls(int(found[1]), found[2], way)

    def __str__(self) -> str:
        return ":".join(filter(None, (str(self.count), self.metric, self.direction)))


@dataclass(frozen=True, slots=True)
class Policy:
    """What a model keeps: the union of its rules. Without any rule it is false."""

    last: int | None = None
    best: tuple[Best, ...] = ()
    every: int | None = None
    """Seconds: the newest version of each period of this length."""
    within: int | None = None
    """Seconds: what is not older than that, against the newest version."""

    @classmethod
    def of(
        cls,
        *,
        last: object = None,
        best: object = None,
        every: object = None,
        within: object = None,
    ) -> Policy:
        """From what people write: `last=3, best="2:eval_loss", every="7d", within="30d"`; `best` may be a
        list. Raises InvalidArgument."""
        if last is not None and (isinstance(last, bool) or not isinstance(last, int) or last < 1):
            raise InvalidArgument(argument="last", reason=f"{last!r} is no number of versions from 1 on")
        several = best if isinstance(best, list | tuple) else [] if best is None else [best]
        return cls(
            last=last,
            best=tuple(Best.parse(each) for each in several),
            every=None if every is None else seconds_of("every", every),
            within=None if within is None else seconds_of("within", within),
        )

    @classmethod
    def from_setting(cls, stored: object) -> Policy:
        """As `to_setting` wrote it. Raises InvalidArgument for what is no policy of this release: then
        nothing can be told to go."""
        known = {"last", "best", "every", "within"}
        if not isinstance(stored, dict) or not stored or not set(stored) <= known:
            raise InvalidArgument(argument="the stored policy", reason=f"{stored!r:.200} cannot be read")
        return cls.of(**stored)

    def to_setting(self) -> dict[str, object]:
        """JSON for the model's setting."""
        rules: dict[str, object] = {"last": self.last, "best": [str(b) for b in self.best]}
        rules |= {k: length(v) for k, v in (("every", self.every), ("within", self.within)) if v is not None}
        return {key: value for key, value in rules.items() if value}

    def __bool__(self) -> bool:
        return bool(self.last or self.best or self.every or self.within)

    def __str__(self) -> str:
        words = [f"last {self.last}"] if self.last else []
        words += [f"best {each}" for each in self.best]
        words += [f"every {length(self.every)}"] if self.every else []
        words += [f"within {length(self.within)}"] if self.within else []
        return ", ".join(words) or "no rule"


@dataclass(frozen=True, slots=True)
class Past:
    """A visible version as a policy sees it. `place` grows in the order of the commits; `time` is what the
    version says of itself, in seconds since 1970, None if it says nothing that can be read."""

    version: VersionId
    place: int
    time: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    base: VersionId | None = None
    """What it is loaded on."""
    pins: tuple[str, ...] = ()
    """What needs it from outside: `alias production`, `base of other@r8/final`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a version: kept by each of `kept`; or it goes, for it is no rule's: `why`."""

    version: VersionId
    kept: tuple[str, ...]
    why: str = ""

    @property
    def goes(self) -> bool:
        return not self.kept


def judge(
    history: Collection[Past],
    policy: Policy,
    *,
    model: str,
    directions: Mapping[str, Direction],
    now: float | None = None,
) -> list[Verdict]:
    """What `policy` keeps of a model's visible versions, newest first; `history` may be in any order.

    Every `best` names its metric here; `directions` says of each whether less or more is better. A parent
    is history, no need: a child is read without it. `now` only bounds what counts as the present from
    above, so that another clock can keep more and never less.

    Raises NothingKept if no rule keeps anything, names and bases aside, InvalidArgument for the best by
    a metric that no version has.
    """
    line = sorted(history, key=lambda past: past.place, reverse=True)
    kept: dict[VersionId, list[str]] = {past.version: [] for past in line}
    rules = [
        *([_last(line, policy.last)] if policy.last else []),
        *(_best(line, best, directions) for best in policy.best),
        *([_every(line, policy.every, now)] if policy.every else []),
        *([_within(line, policy.within, now)] if policy.within else []),
    ]
    for rule in rules:
        for version, reason in rule.kept.items():
            kept[version].append(reason)
    if line and not any(rule.counted for rule in rules):
        reason = "; ".join(rule.empty for rule in rules) or "it has no rule"
        raise NothingKept(policy=str(policy), count=len(line), model=model, reason=reason)
    for best in policy.best if line else ():
        # Most likely mistyped: beside other rules it would keep nothing, without a word.
        if not any((best.metric or "") in past.metrics for past in line):
            raise InvalidArgument(
                argument="best", reason=f"no version of {model} has the metric {best.metric!r}"
            )
    for past in line:
        kept[past.version] += past.pins
    _keep_bases(line, kept)
    why = ", ".join(rule.against for rule in rules)
    return [Verdict(p.version, tuple(kept[p.version]), "" if kept[p.version] else why) for p in line]


def _keep_bases(line: Sequence[Past], kept: dict[VersionId, list[str]]) -> None:
    bases = {past.version: past.base for past in line}
    ahead = [version for version, reasons in kept.items() if reasons]
    while ahead:
        version = ahead.pop()
        base = bases[version]
        if base is not None and base in kept:
            if not kept[base]:
                ahead.append(base)
            kept[base].append(f"base of {version.short}")


# --- the rules ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one rule keeps, and why; `against` says of another version why it is not among them."""

    kept: dict[VersionId, str]
    against: str
    counted: bool
    """Whether the rule itself chose something; what it merely cannot judge yet is no choice."""
    empty: str = ""


def _last(line: Sequence[Past], count: int) -> _Rule:
    kept = {past.version: f"one of the last {count}" for past in line[:count]}
    return _Rule(kept, f"not one of the last {count}", bool(kept))


def _best(line: Sequence[Past], best: Best, directions: Mapping[str, Direction]) -> _Rule:
    metric = best.metric or ""
    way = best.direction or directions[metric]
    words = f"best {best.count} by {'lowest' if way == 'min' else 'highest'} {metric}"
    numbers = [p for p in line if not math.isnan(p.metrics.get(metric, math.nan))]
    # Of equal ones the earlier is better: `line` is newest first.
    numbers.sort(key=lambda p: (p.metrics[metric] * (1 if way == "min" else -1), p.place))
    kept = {past.version: f"{words}: {past.metrics[metric]:.6g}" for past in numbers[: best.count]}
    measured = [past.place for past in line if metric in past.metrics]
    for past in line:
        # The newest may be under evaluation just now.
        if metric not in past.metrics and measured and past.place > max(measured):
            kept[past.version] = f"{metric} may still come"
    empty = f"every {metric} is NaN" if measured else f"no version has the metric {metric!r}"
    return _Rule(kept, f"not of the {words}", bool(numbers), empty)


def _every(line: Sequence[Past], period: int, now: float | None) -> _Rule:
    kept: dict[VersionId, str] = {}
    seen: set[int] = set()
    doubtful = _doubtful(line, now)
    for past in line:
        if past.time is None or past.version in doubtful:
            kept[past.version] = _UNSURE
            continue
        bucket = math.floor(past.time / period)
        if bucket not in seen:
            seen.add(bucket)
            kept[past.version] = f"the newest of its {length(period)}"
    return _Rule(kept, f"its {length(period)} has a newer one", bool(line))


def _within(line: Sequence[Past], span: int, now: float | None) -> _Rule:
    doubtful = _doubtful(line, now)
    present = _present(line, now)
    kept: dict[VersionId, str] = {}
    for past in line:
        if past.time is None or past.version in doubtful or present is None:
            kept[past.version] = _UNSURE
        elif past.time >= present - span:
            kept[past.version] = f"within {length(span)} of the newest"
    return _Rule(kept, f"more than {length(span)} older than the newest", bool(line))


# --- clocks ---------------------------------------------------------------------------------------

_UNSURE = "its time is not sure"


def _present(line: Sequence[Past], now: float | None) -> float | None:
    """The latest that is sure to have come: what the newest version says, unless `now` is before it. A clock
    that was behind when that version was made, or is now, makes the others younger, never older."""
    told = [time for time in (line[0].time if line else None, now) if time is not None]
    return min(told) if line and line[0].time is not None else None


def _doubtful(line: Iterable[Past], now: float | None) -> set[VersionId]:
    """Versions whose times are more than a day beyond `now`, or contradict the order of the commits by as
    much: made before what was committed earlier, or after what was committed later. Which of two clocks was
    wrong nobody knows; those that are on some longest line of versions that agree with the order are believed
    against others."""
    timed = sorted((p for p in line if p.time is not None), key=lambda past: past.place)
    latest_yet = math.inf if now is None else now + _TOLERATED
    # Held against the others all the same: left out, it would make sure what is doubtful without `now`.
    to_come = {p.version for p in timed if (p.time or 0.0) > latest_yet}
    times = [past.time or 0.0 for past in timed]
    up_to, from_here = _rises(times), _rises([-time for time in reversed(times)])[::-1]
    longest = max(up_to, default=0)
    on_it = [a + b - 1 == longest for a, b in zip(up_to, from_here, strict=True)]
    latest = [
        -math.inf,
        *accumulate((t if on else -math.inf for t, on in zip(times, on_it, strict=True)), max),
    ]
    after = [t if on else math.inf for t, on in zip(times, on_it, strict=True)]
    soonest = [*accumulate(reversed(after), min)][::-1]
    return to_come | {
        past.version
        for past, time, before, later in zip(timed, times, latest[:-1], soonest, strict=True)
        if before > time + _TOLERATED or later < time - _TOLERATED
    }


def _rises(times: Iterable[float]) -> list[int]:
    """For each place the length of the longest subsequence that never falls and ends there."""
    ends: list[float] = []
    found = []
    for time in times:
        at = bisect_right(ends, time)
        ends[at : at + 1] = [time]
        found.append(at + 1)
    return found
