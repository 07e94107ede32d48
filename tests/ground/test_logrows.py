"""Logged rows: what is kept of them, and that those of a run's versions make one log again."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata import logrows
from stemmata.logrows import Kept, Placed, Row, Rows, between, decoded, joined, line_of

numbers = st.integers(-(2**70), 2**70) | st.floats()
rows = st.lists(
    st.fixed_dictionaries(
        {"step": st.integers(0, 2**63 - 1), "loss": numbers},
        optional={"epoch": st.floats(0, 9), "~x": numbers, "töne": numbers},
    ),
    max_size=5,
)


def exactly(kept: Kept) -> list[list[tuple[str, str]]]:
    """As text: NaN is NaN, 1 is not 1.0, and 0.0 is not -0.0."""
    return [sorted((name, repr(value)) for name, value in row.items()) for row in kept.rows]


# --- the object -----------------------------------------------------------------------------------


@given(rows, st.integers(0, 9))
def test_rows_come_back_as_they_were_logged(given_rows: list[Row], left_out: int) -> None:
    kept = Kept(tuple(given_rows), left_out)
    again = decoded(kept.encoded())
    assert exactly(again) == exactly(kept)
    assert again.left_out == left_out
    json.loads(kept.encoded(), parse_constant=pytest.fail)  # JSON proper: no NaN


@given(
    st.binary(max_size=40)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["rows", "step"]), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_bytes_that_are_no_rows_are_none_and_no_error(data: bytes) -> None:
    assert all(logrows.is_step(row["step"]) for row in decoded(data).rows)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"[" * 99_999, b'{"rows":7}', b'{"rows":[{"loss":1.0}]}', b'{"rows":[{"step":-1,"x":1}]}',
     b'{"rows":[{"step":true,"x":1}]}', b'{"rows":[{"step":1.5}]}',
     b'{"rows":[{"step":9223372036854775808}]}', b'{"rows":[{"step":1,"x":[]}]}',
     b" " * (logrows.MAX_BYTES + 1)],
)  # fmt: skip
def test_a_fault_of_each_kind_gives_no_row(data: bytes) -> None:
    assert decoded(data).rows == ()


def test_text_for_a_number_is_passed_over_and_the_rest_of_the_row_stays() -> None:
    data = msgspec.json.encode({"rows": [{"step": 3, "a": "x", "b": "~nan", "c": None, "d": True, "e": 2}]})
    (row,) = decoded(data).rows
    assert list(row) == ["step", "b", "e"]
    assert math.isnan(row["b"])


def test_what_is_too_long_for_an_object_is_thinned_and_counted() -> None:
    kept = Kept(tuple({"step": n, "loss": 0.5} for n in range(1000)))
    data = kept.encoded(limit=5000)
    again = decoded(data)
    assert len(data) <= 5000
    assert len(again.rows) + again.left_out == 1000
    assert [row["step"] for row in again.rows] == list(range(0, 1000, 8))


# --- how many -------------------------------------------------------------------------------------


def test_a_row_is_a_step_with_numbers_and_names_no_step_of_its_own() -> None:
    made = Rows()
    made.add(3, 0.5, {"loss": 1.0, "epoch": 7.0, "step": 9})
    made.add(4, None, {"epoch": 1.0})
    made.add(5, None, {"n": 2**60})
    assert made.take() == Kept(({"step": 3, "epoch": 0.5, "loss": 1.0}, {"step": 5, "n": 2**60}))
    assert not made.take()


def test_of_many_rows_each_series_keeps_an_even_share() -> None:
    made = Rows(most=100)
    for step in range(1, 1001):
        made.add(step, None, {"loss": float(step)})
        if step % 50 == 0:
            made.add(step, None, {"eval_loss": float(step)})
    kept = made.take()
    assert len(kept.rows) <= 100
    assert len(kept.rows) + kept.left_out == 1020
    losses = [row["step"] for row in kept.rows if "loss" in row]
    evaluated = [row["step"] for row in kept.rows if "eval_loss" in row]
    assert losses == list(range(1, 1001, 16))
    assert evaluated == [50, 850]
    made.add(1001, None, {"loss": 0.0})
    assert [row["step"] for row in made.take().rows] == [1001], "the next version begins anew"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=60), st.integers(2, 6))
def test_there_are_never_more_than_there_may_be(logged: list[tuple[int, int]], most: int) -> None:
    made = Rows(most=most, numbers=5 * most)
    for step, (name, width) in enumerate(logged):
        made.add(step, None, {f"{name}{n}": 0.0 for n in range(width)})
        assert len(made) <= most
    kept = made.take()
    assert len(kept.rows) + kept.left_out == len(logged)


def test_names_that_never_come_twice_are_bounded_too() -> None:
    made = Rows(most=8)
    for step in range(200):
        made.add(step, None, {f"loss_{step}": 0.0})
        assert len(made) <= 8
        assert len(made._series) <= 17


# --- rows of a run --------------------------------------------------------------------------------


@dataclass
class Training:
    """A training that saves, is killed and goes on, as the callback keeps it: a model of the real one."""

    step: int = 0
    value: int = 0
    """No two rows have the same."""
    history: list[Row] = field(default_factory=list)
    """What this process believes was logged, as `log_history` has it."""
    waiting: list[Row] = field(default_factory=list)
    line: list[str] = field(default_factory=list)
    versions: list[Placed] = field(default_factory=list)
    kept: dict[str, list[Row]] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)
    truth: dict[str, list[Row]] = field(default_factory=dict)
    """What had been logged when each version was saved."""
    states: list[tuple[int, list[Row], list[str]]] = field(default_factory=list)

    def train(self) -> None:
        self.step += 1

    def log(self, name: str) -> None:
        self.value += 1
        row = {"step": self.step, name: self.value}
        self.history.append(row)
        self.waiting.append(row)

    def save(self, *, aside: bool = False) -> None:
        made = f"v{len(self.versions)}"
        # The best weights are brought back at the end: they come from an early version.
        parent = self.line[0 if aside else -1] if self.line else None
        self.versions.append(Placed(made, parent, aside))
        self.at[made] = self.step
        self.kept[made] = [] if aside else self.waiting
        if not aside:
            self.waiting, self.line = [], [*self.line, made]
            self.truth[made] = list(self.history)

    def keep_state(self) -> None:
        self.states.append((self.step, list(self.history), list(self.line)))

    def go_on(self, place: int) -> None:
        """Killed here, started again from a state: nothing but that and the versions is left."""
        if not self.states:
            return
        self.step, history, line = self.states[place % len(self.states)]
        self.history, self.line = list(history), list(line)
        since = self.at[line[-1]] if line else 0
        self.waiting = [row for row in history if row["step"] >= since]


moves = st.lists(
    st.tuples(
        st.sampled_from(["train", "log", "evaluate", "save", "best", "state", "go_on"]), st.integers(0, 3)
    ),
    max_size=40,
)


@given(moves)
def test_i11_the_rows_of_a_runs_versions_are_its_log_through_kills_and_restarts(
    done: list[tuple[str, int]],
) -> None:
    training = Training()
    for move, number in done:
        match move:
            case "train":
                training.train()
            case "log":
                training.log("loss")
            case "evaluate":
                training.log("eval_loss")
            case "save":
                training.save()
            case "best":
                training.save(aside=True)
            case "state":
                training.keep_state()
            case _:
                training.go_on(number)
    training.save()
    training.save(aside=True)
    last = training.line[-1]
    for wanted in training.line:
        line = line_of(wanted, training.versions)
        assert line == training.line, "of any version of the line: what came of it is of the run too"
        found = joined((each, training.kept[each]) for each in line)
        assert _metrics(found) == _merged(training.truth[last])
    for each in training.versions:
        line = line_of(each.id, training.versions)
        assert each.id in line
        if each.id not in training.line and not each.aside:
            # A branch that was given up has its own log, and nothing of what came instead.
            head = [v for v in line if v in training.truth][-1]
            assert _metrics(joined((v, training.kept[v]) for v in line)) == _merged(training.truth[head])


def _metrics(found: dict[int, logrows.Logged]) -> dict[int, dict[str, int | float]]:
    return {step: dict(each.metrics) for step, each in found.items()}


def _merged(history: list[Row]) -> dict[int, dict[str, int | float]]:
    told: dict[int, dict[str, int | float]] = {}
    for row in history:
        told.setdefault(int(row["step"]), {}).update({k: v for k, v in row.items() if k != "step"})
    return {step: told[step] for step in sorted(told)}


def test_a_line_ends_where_its_parents_are_of_another_run_and_never_loops() -> None:
    assert line_of("b", [Placed("b", "of another run"), Placed("c", "b")]) == ["b", "c"]
    assert line_of("b", [Placed("a", "b"), Placed("b", "a")])[-1] in "ab"
    assert line_of("x", []) == []


def test_what_is_logged_twice_is_there_as_it_was_logged_last() -> None:
    parts: list[tuple[str, list[Row]]] = [
        ("one", [{"step": 1, "epoch": 0.5, "loss": 3}, {"step": 2, "loss": 2.5}]),
        ("two", [{"step": 2, "eval_loss": 9.0}, {"step": 2, "loss": 2.0}]),
        ("two", [{"step": 2, "loss": 2.0}, {"loss": 1.0}]),
    ]
    found = joined(parts)
    assert [each.row() for each in found.values()] == [
        {"step": 1, "epoch": 0.5, "loss": 3},
        {"step": 2, "loss": 2.0, "eval_loss": 9.0},
    ]
    assert [each.holders for each in found.values()] == [["one"], ["one", "two"]]


# --- for drawings ---------------------------------------------------------------------------------


@given(st.lists(st.floats(), max_size=80), st.integers(3, 30))
def test_a_thinned_line_keeps_its_extremes_and_where_it_breaks(values: list[float], most: int) -> None:
    points = [(float(x), y) for x, y in enumerate(values)]
    drawn = between(points, most)
    assert [x for x, _ in drawn] == sorted({x for x, _ in drawn})
    assert {x for x, _ in drawn} <= {x for x, _ in points}
    assert len(drawn) <= max(most, 3) + 3
    finite = [y for y in values if math.isfinite(y)]
    shown = [y for _, y in drawn if math.isfinite(y)]
    assert (min(finite), max(finite)) == (min(shown), max(shown)) if finite else not shown
    assert any(not math.isfinite(y) for y in values) == any(not math.isfinite(y) for _, y in drawn)
