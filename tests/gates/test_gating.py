"""Requirements of one version: what holds, what fails, and what cannot be told."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelf import Shelf
from stemmata.catalog import queries
from stemmata.catalog.expression import compile_filter
from stemmata.catalog.grammar import MAX_LENGTH
from stemmata.cli.gates import gate_table
from stemmata.errors import InvalidArgument, InvalidExpression
from stemmata.gating import MOST, Verdict, judge, requirements_of
from stemmata.ids import VersionId
from stemmata.log import ops
from stemmata.measurements import Dataset, contradiction, details_of, measured


def gate(shelf: Shelf, version: VersionId, *texts: str) -> Verdict:
    row = queries.version_by_id(shelf.connection, version)
    assert row is not None
    return judge(shelf.connection, row, requirements_of(texts))


def measure(shelf: Shelf, version: VersionId, dataset: Dataset, **metrics: float) -> None:
    """Annotate metrics as measured on a dataset."""
    said = details_of(dataset, "harness 1.0")
    shelf.write(ops.VersionAnnotate(version=version.hex, metrics=metrics, details=said))


@pytest.fixture
def pair(shelf: Shelf) -> tuple[Shelf, VersionId, VersionId]:
    """`old`, which production names, and `new`."""
    old = shelf.save("m", "old", metrics={"acc": 0.91, "eval_loss": 0.5, "bad": math.nan}, step=100)
    new = shelf.save(
        "m", "new", metrics={"acc": 0.9, "eval_loss": 0.4, "odd acc": 3, "f1": math.nan, "top": math.inf},
        config={"lora.r": 8, "optim": "adamw"}, labels={"stage": "gold"}, step=200,
    )  # fmt: skip
    shelf.ref("m", "alias", "production", old)
    shelf.ref("m", "alias", "v1.2", old)
    return shelf, old, new


@pytest.mark.parametrize(
    "expression",
    [
        "acc >= @production.acc - 0.01",
        "acc >= @PRODUCTION.metrics.acc -0.01",
        "acc + 0.01 >= @production.acc",
        "@production.acc - 0.01 <= acc",
        "@production.acc * 0.5 < acc <= @production.acc * 1 + 0",
        "eval_loss <= 0.8 * @production.eval_loss",
        "eval_loss < @production.eval_loss and acc < @production.acc",
        "acc >= @`v1.2`.acc - 0.01",
        "`odd acc` - 1 == 2",
        "acc - eval_loss == 0.5",
        "acc > @best.eval_loss * 0 - 1 + 1.5",
        "step == @old.step * 2",
        "name != @production.name",
        "@production.kind == 'files' and 'files' == @production.kind",
        "@production.name == 'old' and @production.name != 'new' and @production.step != 'x'",
        "acc < 0.95 or nothing > 1",
        "nothing is none and f1 is nan",
        "nothing == none",
        "not (acc > 0.95)",
        "label.stage == 'gold' and optim ~ 'ADAM' and lora.r in [4, 8]",
        "top > 1e308 and top > @production.acc",
        "alias is none",
        "tag != 'v1'",
    ],
)
def test_what_holds(pair: tuple[Shelf, VersionId, VersionId], expression: str) -> None:
    shelf, _, new = pair
    found = gate(shelf, new, expression)
    assert found.passed, found.checks[0].reason
    assert found.checks[0].reason == ""


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("eval_loss < 0.4", "eval_loss < 0.4: it is 0.4"),
        ("acc >= @production.acc - 0.005", "it is 0.9, wanted >= 0.905"),
        ("nothing > 1", "nothing is missing"),
        ("not nothing > 1", "nothing is missing"),
        ("nothing != 1", "nothing is missing"),
        ("nothing in [1]", "nothing is missing"),
        ("acc < 0.95 and nothing > 1", "nothing is missing"),
        ("acc > 0.95 or nothing > 1", "nothing is missing"),
        ("f1 > 0.5", "f1 is NaN"),
        ("f1 != 0.5", "f1 is NaN"),
        ("acc > @production.bad", "@production.bad is NaN there"),
        ("acc > @production.nothing", "@production.nothing is missing there"),
        ("acc > @production.acc-0.01", "blanks stand around + and -"),
        ("acc > @staging.acc", "staging names nothing yet; promote without that requirement first"),
        ("acc > @productin.acc", "did you mean m@production?"),
        ("@production.kind == 'adapter'", "it is files"),
        ("@production.nothing == 'x'", "@production.nothing is missing there"),
        ("@staging.kind == 'files'", "staging names nothing yet"),
        ("acc > optim", "optim is no number: 'adamw'"),
        ("stage > 1", "it is gold"),
        ("top - top == 0", "infinities leave nothing to compare"),
        ("top * 0 == 0", "infinities"),
        ("acc in [0.8, 0.85]", "it is 0.9"),
        ("alias == 'production'", "it is none"),
    ],
)
def test_what_fails_says_why(pair: tuple[Shelf, VersionId, VersionId], expression: str, reason: str) -> None:
    shelf, _, new = pair
    found = gate(shelf, new, "acc > 0", expression)
    assert [c.passed for c in found.checks] == [True, False]
    assert not found.passed
    assert reason in found.failed[0].reason


def test_an_alias_that_is_gone_is_no_alias_that_never_was(
    pair: tuple[Shelf, VersionId, VersionId],
) -> None:
    shelf, _, new = pair
    shelf.ref("m", "alias", "v1.2", None)
    assert "was deleted" in gate(shelf, new, "acc > @`v1.2`.acc").failed[0].reason


@pytest.mark.parametrize(
    ("expression", "position", "reason"),
    [
        ("", 1, "expected, not the end"),
        ("acc > @production", 7, "@alias.metric"),
        ("acc > @.acc", 7, "@alias.metric"),
        ("acc > -", 7, "a name or a value"),
        ("acc + > 1", 7, "a name or a value"),
        ("acc - 'x' > 1", 7, "only numbers"),
        ("acc * none > 1", 1, "only numbers"),
        ("true + 1 == acc", 1, "only numbers"),
        ("acc * 2 == 'x'", 12, "only numbers"),
        ("acc + @production.acc > true", 25, "only numbers"),
        ("1 + 1 == 2", 10, "no name"),
        ("@production.acc == none", 20, "of this version alone"),
        ("@production.acc is none", 17, "a comparison"),
        ("acc ~ @production.acc", 7, "between a name and a text"),
        ("abs(acc) > 1", 1, "there are no functions"),
        ("acc > min(0.5, @production.acc)", 7, "there are no functions"),
        ("acc > (1 + 2)", 7, "a name or a value"),
        ("acc > 1 / 2", 9, "means nothing"),
        ("äcc > 1 → 2", 9, "means nothing"),
        ("acc > @production.`acc", 7, "@alias.metric"),
        ("a == 1 or " * 300, MAX_LENGTH + 1, "longer"),
        ("acc > " + "1 + " * 400 + "@", 1607, "@alias.metric"),
        ("not " * 60 + "a == 1", 205, "nested"),
        ("acc > '\ud800'", 8, "Unicode"),
    ],
)
def test_what_cannot_be_read_is_refused_where_it_goes_wrong(
    expression: str, position: int, reason: str
) -> None:
    with pytest.raises(InvalidExpression) as caught:
        requirements_of([expression])
    assert (caught.value.data["position"], reason in str(caught.value.data["reason"])) == (position, True)
    str(caught.value).encode()


def test_a_filter_speaks_of_no_other_version_and_reckons_nothing() -> None:
    for expression in ("acc > @production.acc", "acc > 1 + 2", "acc * 2 > 1"):
        with pytest.raises(InvalidExpression):
            compile_filter(expression)


def test_too_many_requirements_secrets_and_what_is_no_text_are_refused() -> None:
    for texts in (["a > 1"] * (MOST + 1), ["api_key == 'abcdef'"], [3]):
        with pytest.raises(InvalidArgument):
            requirements_of(texts)  # type: ignore[arg-type]
    assert [r.text for r in requirements_of(["a > 1", "a > 1"])] == ["a > 1"]


def test_what_just_fails_is_not_shown_as_what_was_wanted(shelf: Shelf) -> None:
    """0.9099999999 is not 0.91, and a table that rounds would say that it is."""
    old = shelf.save("m", "old", metrics={"acc": 0.91})
    shelf.ref("m", "alias", "production", old)
    new = shelf.save("m", "new", metrics={"acc": 0.9099999999})
    for expression in ("acc >= @production.acc", "acc >= 0.91"):
        found = gate(shelf, new, expression)
        assert found.failed[0].reason.startswith(f"{expression}: it is 0.9099999999")
        (compared,) = found.failed[0].comparisons
        table = gate_table(found.to_dict(), 100)
        assert table is not None
        assert "0.9099999999" in table.plain
        assert compared.wanted.startswith(">= 0.91")


def test_the_verdict_holds_both_sides_and_who_was_compared(
    pair: tuple[Shelf, VersionId, VersionId],
) -> None:
    shelf, old, new = pair
    found = gate(shelf, new, "acc >= @production.acc - 0.01").to_dict()
    assert found["compared_with"] == {"production": old.hex}
    (check,) = found["requirements"]  # type: ignore[misc]
    (compared,) = check["comparisons"]  # type: ignore[index]
    assert (compared["found"], compared["wanted"], compared["holds"]) == (0.9, ">= 0.9", True)
    assert [(t["name"], t["version"], t["value"]) for t in compared["terms"]] == [
        ("acc", new.hex, 0.9),
        ("@production.acc", old.hex, 0.91),
    ]
    nan = gate(shelf, new, "f1 > 0.5").to_dict()["requirements"][0]  # type: ignore[index]
    assert nan["comparisons"][0]["terms"][0]["value"] == "~nan"


# --- what was measured on what ----------------------------------------------------------------------

SST = Dataset("sst2-test", "aa11")
RULE = "acc >= @production.acc - 0.01"


@pytest.mark.parametrize(
    ("old_on", "new_on", "passes"),
    [
        (SST, SST, True),
        (SST, Dataset("sst2-test"), True),
        (SST, Dataset("other name", "aa11"), True),
        (SST, Dataset("sst2-test", "bb22"), False),
        (SST, Dataset("imdb"), False),
        (SST, Dataset(), False),
        (Dataset(), SST, False),
        (Dataset("", "aa11"), Dataset("sst2-test"), False),
        (Dataset(), Dataset(), True),
    ],
)
def test_values_measured_on_different_data_do_not_compare(
    pair: tuple[Shelf, VersionId, VersionId], old_on: Dataset, new_on: Dataset, passes: bool
) -> None:
    shelf, old, new = pair
    measure(shelf, old, old_on, acc=0.8)
    measure(shelf, new, new_on, acc=0.9)
    found = gate(shelf, new, RULE, "acc > 0.5", "step > @production.step")
    assert [c.passed for c in found.checks] == [passes, True, True]
    if not passes:
        assert "measured on" in found.failed[0].reason


def test_the_last_measurement_counts_and_a_save_tells_its_own_data(shelf: Shelf) -> None:
    old = shelf.save("m", "old", metrics={"acc": 0.9, "loss": 1}, data={"eval.fingerprint": "aa11"})
    same = shelf.save("m", "same", metrics={"acc": 0.9}, data={"eval.fingerprint": "aa11"})
    other = shelf.save(
        "m",
        "other",
        metrics={"acc": 0.9, "loss": 1},
        data={"eval.fingerprint": "bb22", "train.fingerprint": "c"},
    )
    shelf.ref("m", "alias", "production", old)
    assert gate(shelf, same, RULE).passed
    assert (
        "measured on the data bb22, the other on the data aa11" in gate(shelf, other, RULE).checks[0].reason
    )
    assert not gate(shelf, other, "loss <= @production.loss").passed
    measure(shelf, other, Dataset("t", "aa11"), acc=0.9)
    assert gate(shelf, other, RULE).passed
    measure(shelf, other, Dataset("t", "zz"), acc=0.95)
    assert not gate(shelf, other, RULE).passed


def test_what_an_annotation_says_of_its_data_may_be_anything() -> None:
    for said in (None, {}, {"measured": 3}, {"measured": {"dataset": 4, "source": ["x"]}}):
        assert measured(said) == (Dataset(), "")
    assert measured(details_of(SST, "s")) == (SST, "s")
    assert details_of(Dataset(), "") is None
    assert contradiction([]) is None


# --- as a filter decides it -------------------------------------------------------------------------

_NAMES = st.sampled_from(
    ["acc", "eval_loss", "lora.r", "optim", "step", "name", "label.stage", "nothing", "f1"]
)
_LEAVES = st.builds(
    lambda name, op, value: f"{name} {op} {value}",
    _NAMES,
    st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
    st.sampled_from(["0.4", "0.9", "8", "200", "'adamw'", "'gold'", "'new'", "-1e9", "inf"]).filter(
        lambda v: v != "inf"
    ),
) | st.builds(lambda name: f"{name} is none", _NAMES)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        _LEAVES, lambda e: st.builds("({0} and {1})".format, e, e) | st.builds("({0} or {1})".format, e, e)
    )
)
def test_a_gate_passes_only_what_a_filter_finds(expression: str) -> None:
    """Without "not" both agree: what cannot be told is no more found than it passes."""
    shelf, new = _shelf()
    sql = compile_filter(expression)
    statement = f"SELECT COUNT(*) FROM versions v WHERE v.name = 'new' AND {sql.sql}"
    is_found = bool(shelf.connection.execute(statement, sql.parameters).fetchone()[0])
    assert gate(shelf, new, expression).passed == is_found


_MADE: list[tuple[Shelf, VersionId]] = []


def _shelf() -> tuple[Shelf, VersionId]:
    if not _MADE:
        shelf = Shelf()
        new = shelf.save(
            "m", "new", metrics={"acc": 0.9, "eval_loss": 0.4, "f1": math.nan}, step=200,
            config={"lora.r": 8, "optim": "adamw"}, labels={"stage": "gold"},
        )  # fmt: skip
        _MADE.append((shelf, new))
    return _MADE[0]


def test_a_sum_over_benchmarks_holds_each_against_its_own(pair: tuple[Shelf, VersionId, VersionId]) -> None:
    shelf, old, new = pair
    for version, value in ((old, 0.7), (new, 0.75)):
        measure(shelf, version, Dataset("imdb"), imdb=value)
        measure(shelf, version, SST, sst=value)
    rule = "imdb + sst >= @production.imdb + @production.sst"
    assert gate(shelf, new, rule).passed
    crossed = gate(shelf, new, "imdb >= @production.sst").checks[0]
    assert not crossed.passed
    assert "measured on" in crossed.reason
    measure(shelf, new, Dataset("imdb-hard"), imdb=0.9)
    moved = gate(shelf, new, rule).checks[0]
    assert not moved.passed
    assert "measured on imdb-hard, the other on imdb" in moved.reason
