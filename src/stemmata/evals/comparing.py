"""Comparing: the same eval of two versions, example by example. Owns what counts as fixed and broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stemmata.catalog.queries import VersionRow
from stemmata.errors import InvalidArgument, InvalidExamples
from stemmata.evals.index import SCORED, Index
from stemmata.evals.lines import Example, Key, examples_in, sample, score_field, score_of
from stemmata.evals.reading import Eval, read_lines, with_examples
from stemmata.ids import VersionId
from stemmata.measurements import contradiction
from stemmata.metricnames import Direction, direction_of
from stemmata.session import Session

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Changed:
    """One example whose score changed: on which lines it stands, and what they say."""

    line_a: int
    line_b: int
    a: Example
    b: Example

    def to_dict(self) -> dict[str, object]:
        return {"line_a": self.line_a, "line_b": self.line_b, "a": self.a, "b": self.b}


@dataclass(frozen=True, slots=True)
class EvalDiff:
    """What became of each example from version `a` to version `b`.

    `direction` says which way is better. `binary`: every score is 0 or 1, so that better is fixed and worse
    is broken; `right` and `wrong` are those that stayed so. `unchanged` counts equal scores.
    """

    name: str
    a: VersionId
    b: VersionId
    eval_a: Eval
    eval_b: Eval
    key: str
    matched_by: str
    """id, inputs or line."""
    score: str
    binary: bool
    direction: Direction
    better: int
    worse: int
    right: int
    wrong: int
    unchanged: int
    unscored: int
    """Matched, but without a score on a side."""
    only_a: int
    only_b: int
    unkeyed_a: int
    unkeyed_b: int
    twice_a: int
    """Keys that occur more than once on this side; none of them is compared."""
    twice_b: int
    twice_named: tuple[str, ...]
    mean_a: float | None
    mean_b: float | None
    differing_data: str | None
    """Why the two may not be of the same examples."""
    fixed: tuple[Changed, ...]
    broken: tuple[Changed, ...]

    @property
    def summary(self) -> str:
        words = ("fixed", "broken") if self.binary else ("improved", "worsened")
        return f"{self.better:,} {words[0]}, {self.worse:,} {words[1]}"

    def to_dict(self) -> dict[str, object]:
        return {
            "eval": self.name,
            "a": {"id": self.a.hex, **self.eval_a.to_dict()},
            "b": {"id": self.b.hex, **self.eval_b.to_dict()},
            "matched_by": self.matched_by,
            "key": self.key,
            "score": self.score,
            "binary": self.binary,
            "direction": self.direction,
            "better": self.better,
            "worse": self.worse,
            "right": self.right,
            "wrong": self.wrong,
            "unchanged": self.unchanged,
            "unscored": self.unscored,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "without_key": {"a": self.unkeyed_a, "b": self.unkeyed_b},
            "twice": {"a": self.twice_a, "b": self.twice_b, "named": list(self.twice_named)},
            "mean": {"a": self.mean_a, "b": self.mean_b},
            "differing_data": self.differing_data,
            "fixed": [c.to_dict() for c in self.fixed],
            "broken": [c.to_dict() for c in self.broken],
        }


def diff_evals(
    session: Session,
    a: VersionRow,
    b: VersionRow,
    name: str,
    *,
    key: str | None = None,
    score: str | None = None,
    show: int = 5,
    at: tuple[str | None, str | None] = (None, None),
) -> EvalDiff:
    """Compare the last eval `name` of both, with the first `show` examples that became better and worse.

    `key` is the field that examples are matched by ("line": their place), `score` the field that says how
    good each was. `at`, of each: the last eval that it had then. Both files are read twice, a line at a
    time.

    Raises EvalNotFound, Redacted, InvalidArgument, Damage.
    """
    if show < 0:
        raise InvalidArgument(argument="show", reason=f"{show} is less than none")
    rows = (a, b)
    evals = [with_examples(session, row, name, at=then) for row, then in zip(rows, at, strict=True)]

    def lines(side: int) -> Iterator[bytes]:
        return read_lines(session, rows[side], evals[side])

    samples = [_sample(lines(side), rows[side]) for side in (0, 1)]
    known = Key.for_examples(samples, key)
    field = score_field(samples, score)
    if field is None:
        has = ", ".join(sorted(samples[1][0])[:20])
        reason = f"no field says how good an answer was; name one (the first example has: {has})"
        raise InvalidArgument(argument="score", reason=reason)
    with Index() as index:
        for side, letter in enumerate("ab"):
            for number, example in examples_in(lines(side)):
                index.add(letter, number, known.of(number, example), score_of(example, field))
        index.settle()
        return _difference(index, known, field, name, rows, evals, lines, show)


def _difference(
    index: Index,
    known: Key,
    field: str,
    name: str,
    rows: tuple[VersionRow, VersionRow],
    evals: list[Eval],
    lines: Callable[[int], Iterator[bytes]],
    show: int,
) -> EvalDiff:
    binary = index.is_binary()
    direction = direction_of(field)
    right, wrong = (1, 0) if direction == "max" else (0, 1)
    better, worse = ("b.score > a.score", "b.score < a.score")[:: 1 if direction == "max" else -1]
    same = f"({SCORED} AND a.score = b.score)"
    counts = index.counts(
        better=f"({SCORED} AND {better})",
        worse=f"({SCORED} AND {worse})",
        unchanged=same,
        right=f"({same} AND a.score = {right})",
        wrong=f"({same} AND a.score = {wrong})",
        unscored=f"NOT ({SCORED})",
        all="1",
    )
    if any(index.unkeyed(side) == found.count for side, found in zip("ab", evals, strict=True)):
        raise InvalidArgument(argument="key", reason=f"no example has {known} on both sides")
    if not counts["all"] and any(index.count_twice(side) and not index.alone(side) for side in "ab"):
        raise InvalidArgument(
            argument="key", reason=f"examples do not differ by {known}: each is there twice"
        )
    if counts["all"] and counts["unscored"] == counts["all"]:
        reason = f"no example has a number in {field!r} on both sides"
        raise InvalidArgument(argument="score", reason=reason)
    means = index.means()
    fixed, broken = index.lines(better, show), index.lines(worse, show)
    twice = [index.twice(side, _NAMED) for side in "ab"]
    wanted = [{pair[side] for pair in fixed + broken} for side in (0, 1)]
    named = [{first for first, _ in twice[side]} for side in (0, 1)]
    texts = [_picked(lines(side), wanted[side] | named[side]) for side in (0, 1)]
    told = [_label(known, n, texts[side][n]) for side in (0, 1) for n in sorted(named[side])]

    def changed(pairs: list[tuple[int, int]]) -> tuple[Changed, ...]:
        return tuple(Changed(one, two, texts[0][one], texts[1][two]) for one, two in pairs)

    return EvalDiff(
        name=name,
        a=rows[0].id,
        b=rows[1].id,
        eval_a=evals[0],
        eval_b=evals[1],
        key=str(known),
        matched_by=known.how,
        score=field,
        binary=binary,
        direction=direction,
        better=counts["better"],
        worse=counts["worse"],
        right=counts["right"] if binary else 0,
        wrong=counts["wrong"] if binary else 0,
        unchanged=counts["unchanged"],
        unscored=counts["unscored"],
        only_a=index.alone("a"),
        only_b=index.alone("b"),
        unkeyed_a=index.unkeyed("a"),
        unkeyed_b=index.unkeyed("b"),
        twice_a=index.count_twice("a"),
        twice_b=index.count_twice("b"),
        twice_named=tuple(dict.fromkeys(told))[:_NAMED],
        mean_a=means[0],
        mean_b=means[1],
        differing_data=contradiction([evals[0].dataset, evals[1].dataset]),
        fixed=changed(fixed),
        broken=changed(broken),
    )


def _sample(lines: Iterable[bytes], row: VersionRow) -> list[Example]:
    found = sample(lines)
    if not found:
        raise InvalidExamples(path=f"an eval of {row.id.short}", reason="it holds no example")
    return found


def _picked(lines: Iterable[bytes], wanted: set[int]) -> dict[int, Example]:
    """The examples on these lines; no line after the last of them is read."""
    found: dict[int, Example] = {}
    if wanted:
        last = max(wanted)
        for number, example in examples_in(lines):
            if number in wanted:
                found[number] = example
            if number >= last:
                break
    return found


def _label(key: Key, line: int, example: Example) -> str:
    values = [str(example.get(field, ""))[:80] for field in key.fields]
    return ", ".join(values) or f"line {line}"
