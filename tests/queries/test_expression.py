"""Filters: what each form finds, what is refused and where, and that nothing becomes SQL."""

from __future__ import annotations

import math
from threading import RLock

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shelf import Shelf
from stemmata.catalog import selecting
from stemmata.catalog.conditions import LINEAGE
from stemmata.catalog.connection import connect
from stemmata.catalog.expression import FIELDS, Scope, compile_filter, compile_sort
from stemmata.catalog.grammar import MAX_LENGTH
from stemmata.catalog.schema import SCHEMA
from stemmata.errors import InvalidExpression
from stemmata.names import name_key


def found(shelf: Shelf, expression: str, at: str | None = None) -> list[str]:
    made = compile_filter(expression, Scope(at=at))
    sql = f"SELECT v.name FROM versions v WHERE {made.sql} ORDER BY v.seq"
    return [row[0] for row in shelf.connection.execute(sql, made.parameters)]


@pytest.fixture
def three(shelf: Shelf) -> Shelf:
    shelf.save(
        "m", "one", metrics={"eval_loss": 0.4, "acc": 1}, step=10, epoch=1.0, run="r-4", message="First try",
        config={"lora.r": 4, "bf16": True, "optim": "adamw", "lora.target_modules": ["q_proj", "v_proj"]},
        labels={"seed": "8", "owner": "ana"}, data={"train.rows": 100},
    )  # fmt: skip
    shelf.save(
        "m", "two", metrics={"eval_loss": 0.2, "acc": math.nan}, step=20, epoch=2.0, run="r-8", size=500,
        config={"lora.r": 8, "bf16": False, "optim": "sgd", "odd key!": "x", "limit": math.inf, "none": None},
    )  # fmt: skip
    shelf.save("m", "three", config={"eval_loss": 7, "config": 1})
    return shelf


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("eval_loss < 0.5", ["one", "two"]),
        ("eval_loss<0.3", ["two"]),
        ("eval_loss = .2", ["two"]),
        ("eval_loss >= 4e-1", ["one", "three"]),
        ("0.1 < eval_loss <= 0.2", ["two"]),
        ("0.3 > eval_loss", ["two"]),
        ("eval_loss < 0.5 and lora.r == 8", ["two"]),
        ("lora.r == 4 or lora.r == 8 and eval_loss > 1", ["one"]),
        ("(lora.r == 4 or lora.r == 8) and eval_loss > 1", []),
        ("not lora.r == 8", ["one", "three"]),
        ("not eval_loss < 0.3 and lora.r == 4", ["one"]),
        ("NOT (eval_loss < 0.3 OR lora.r == 4)", ["three"]),
        ("lora.r != 8", ["one"]),
        ("lora.r <> 8", ["one"]),
        ("lora.r in [4, 16]", ["one"]),
        ("lora.r not in (4, 16)", ["two"]),
        ("optim in ['adamw', \"sgd\"]", ["one", "two"]),
        ("lora.r is none", ["three"]),
        ("lora.r is not none", ["one", "two"]),
        ("lora.r == none", ["three"]),
        ("lora.r != none", ["one", "two"]),
        ("`none` is none", ["one", "two", "three"]),
        ("acc == 1", ["one"]),
        ("acc < 2", ["one"]),
        ("acc != 1", []),
        ("acc not in [1]", []),
        ("acc > 'a' or acc ~ 'a' or acc == 'nan' or acc in ['nan'] or acc != 'x'", ["one"]),
        ("acc is none", ["three"]),
        ("step is nan or name is nan", []),
        ("acc is nan", ["two"]),
        ("acc is not nan", ["one", "three"]),
        ("limit == inf", ["two"]),
        ("limit > 1e300 and limit > -inf", ["two"]),
        ("bf16 == true", ["one"]),
        ("bf16 == FALSE", ["two"]),
        ("bf16 != true", ["two"]),
        ("bf16 in [true]", ["one"]),
        ("optim ~ 'DAM'", ["one"]),
        ("lora.target_modules ~ \"q_proj\"", ["one"]),
        ("`odd key!` == 'x'", ["two"]),
        ("config.`odd key!` == 'x'", ["two"]),
        ("metrics.eval_loss > 1", []),
        ("config.eval_loss > 1", ["three"]),
        ("metric.eval_loss < 1", ["one", "two"]),
        ("label.seed == 8", ["one"]),
        ("seed in [8]", ["one"]),
        ("seed == '8'", ["one"]),
        ("data.train.rows == 100", ["one"]),
        ("config == 1", ["three"]),
        ("step > 10", ["two"]),
        ("epoch <= 1.5", ["one"]),
        ("step is none", ["three"]),
        ("run == 'r-8'", ["two"]),
        ("run is none", ["three"]),
        ("name ~ 'o'", ["one", "two"]),
        ("name != 'one'", ["two", "three"]),
        ("name not in ['one', 'two']", ["three"]),
        ("message ~ 'first'", ["one"]),
        ("message is none", ["two", "three"]),
        ("size > 100", ["two"]),
        ("created_at >= '2026-03-01T00:04'", ["three"]),
        ("created_at < '2026-03-01'", []),
        ("created_at in ['2026-03-01T00:04:00Z']", ["three"]),
        ("created_at > 2026", ["one", "two", "three"]),
        ("created_at >= '2026-03-01T02:04+02:00'", ["three"]),
        ("created_at < '2026-03-01 00:04Z'", ["one", "two"]),
        ("model == 'm'", ["one", "two", "three"]),
        ("author == 'me' and event == 'manual' and kind == 'files' and files == 1", ["one", "two", "three"]),
        ("optim == 7", []),
        ("lora.r == 'x'", []),
        ("lora.r != 'x'", ["one", "two"]),
        ("optim == \"a'; DROP TABLE versions; --\"", []),
        ("lora.r < 99999999999999999999999", ["one", "two"]),
    ],
)  # fmt: skip
def test_what_each_form_finds(three: Shelf, expression: str, names: list[str]) -> None:
    assert found(three, expression) == names


def test_ids_are_found_by_their_first_digits(three: Shelf) -> None:
    version = three.connection.execute("SELECT lower(hex(id)) FROM versions WHERE name = 'two'").fetchone()[0]
    assert found(three, f"id == '{version[:6].upper()}'") == ["two"]
    assert found(three, f"id != '{version}'") == ["one", "three"]
    assert found(three, f"id in ['{version}']") == ["two"]
    assert found(three, f"id in ['{version[:6].upper()}', 'ffff']") == ["two"]
    assert found(three, f"id not in ['{version[:6].upper()}']") == ["one", "three"]


def test_names_aliases_and_tags_are_all_of_a_versions_own(shelf: Shelf) -> None:
    one = shelf.save("m", "one")
    two = shelf.save("m", "two")
    before = shelf.ref("m", "alias", "production", one)
    shelf.ref("m", "name", "final", two)
    shelf.ref("m", "alias", "production", two)
    shelf.ref("m", "tag", "v1", one)
    assert found(shelf, "alias == 'production'") == ["two"]
    assert found(shelf, "alias == 'production'", at=before) == ["one"]
    assert found(shelf, "alias != 'production'") == ["one"]
    assert found(shelf, "alias is none") == ["one"]
    assert found(shelf, "tag == 'v1'") == ["one"]
    assert found(shelf, "name == 'final'") == ["two"]
    assert found(shelf, "name != 'final'") == ["one"]
    assert found(shelf, "name == 'two' and name == 'final'") == ["two"]


@pytest.mark.parametrize("then", [False, True])
@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 2**62 + 7, 2**63 - 1, -(2**63) + 1])
def test_whole_numbers_that_no_float_is_are_found_by_their_own_value(
    shelf: Shelf, value: int, then: bool
) -> None:
    for name, seed in (("below", value - 1), ("it", value), ("above", value + 1)):
        shelf.save("m", name, config={"seed": seed})
    at = shelf.time(shelf.n) if then else None
    for expression, names in (
        (f"seed == {value}", ["it"]),
        (f"seed in [{value}]", ["it"]),
        (f"seed != {value}", ["below", "above"]),
        (f"seed not in [{value}, 1]", ["below", "above"]),
        (f"seed >= {value}", ["it", "above"]),
        (f"seed < {value}", ["below"]),
        ("seed > 1e19", []),
    ):
        if value == 2**63 - 1:
            names = [name for name in names if name != "above"]  # which no 63 bits hold
            expression += " and name != 'above'"
        assert found(shelf, expression, at) == names, expression
    sorted_by_it = selecting.versions(shelf.connection, "m", sort="seed", at=at)
    assert [row.name for row in sorted_by_it] == ["below", "it", "above"]


@pytest.mark.parametrize("then", [False, True])
def test_the_word_nan_is_a_text_as_any_other(shelf: Shelf, then: bool) -> None:
    shelf.save("m", "words", config={"w": "nan"}, data={"d": "nan"}, labels={"l": "nan"})
    shelf.save("m", "number", config={"w": math.nan}, data={"d": math.nan}, metrics={"l": math.nan})
    at = shelf.time(shelf.n) if then else None
    for key in ("w", "d", "l"):
        for rest in ("== 'nan'", "~ 'NA'", "!= 'x'", "in ['nan']", "not in ['x']", "> 'a'"):
            assert found(shelf, f"{key} {rest}", at) == ["words"], (key, rest)
        assert found(shelf, f"{key} is nan", at) == ["number"]
        assert found(shelf, f"{key} is not none", at) == ["words", "number"]
        ordered = selecting.versions(shelf.connection, "m", sort=key, at=at)
        assert [row.name for row in ordered] == ["words", "number"]


@pytest.mark.parametrize("then", [False, True])
def test_names_are_compared_as_names_are_everywhere(shelf: Shelf, then: bool) -> None:
    """Without regard to case and to how Unicode writes a character."""
    one = shelf.save("Team/M", "V1-\u00e4", run="Lauf-\u00c4")
    shelf.save("other", "v2", run="r")
    shelf.ref("Team/M", "alias", "Production", one)
    shelf.ref("Team/M", "tag", "Gold", one)
    at = shelf.time(shelf.n) if then else None
    for expression in (
        'alias == "production"', 'alias in ["PRODUCTION"]', 'alias ~ "PROD"', 'tag == "gold"',
        'name == "v1-\u00c4"', 'name == "v1-A\u0308"', 'name in ["x", "v1-a\u0308"]', 'name ~ "V1"',
        'model == "TEAM/m"', 'model in ["team/M"]', 'model ~ "Team"',
        'run == "lauf-\u00e4"', 'run == "LAUF-A\u0308"', 'run in ["lauf-\u00c4"]', 'run ~ "LAUF"',
    ):  # fmt: skip
        assert found(shelf, expression, at) == ["V1-\u00e4"], expression
    for expression in (
        'alias != "PRODUCTION"', 'name != "v1-\u00c4"', 'model != "team/m"', 'run != "LAUF-\u00c4"',
    ):  # fmt: skip
        assert found(shelf, expression, at) == ["v2"], expression


@pytest.mark.parametrize("model", ["m", None])
def test_the_name_of_a_run_is_folded_once_and_finds_by_the_index_of_runs(
    shelf: Shelf, model: str | None
) -> None:
    for number in range(40):
        shelf.save("m", f"v{number:02}", run=("Lauf", "other", "third", None)[number % 4])
    folded: list[object] = []

    def fold(text: object) -> str | None:
        folded.append(text)
        return name_key(text) if isinstance(text, str) else None

    shelf.connection.create_function("folded", 1, fold, deterministic=True)
    for expression, count in (
        ("run == 'LAUF'", 10),
        ("run != 'LAUF'", 20),
        ("run in ['LAUF', 'OTHER', 'x']", 20),
        ("run not in ['LAUF', 'OTHER', 'x']", 10),
        ("not run == 'LAUF'", 30),
    ):
        folded.clear()
        assert len(selecting.numbers(shelf.connection, model, expressions=[expression])) == count, expression
        assert sorted(map(str, folded)) == ["Lauf", "other", "third"], expression
    made = compile_filter("run == 'LAUF'", Scope("m"))
    sql = f"EXPLAIN QUERY PLAN SELECT v.seq FROM versions v WHERE v.model = 'm' AND {made.sql}"
    plan = shelf.connection.execute(sql, made.parameters).fetchall()
    assert any("SEARCH v USING" in row[3] and "versions_by_run (model=? AND run=?)" in row[3] for row in plan)


def test_metrics_and_labels_as_they_stood_then(shelf: Shelf) -> None:
    one = shelf.save("m", "one", metrics={"loss": 0.5}, labels={"ok": "yes"}, config={"r": 4})
    then = shelf.time(shelf.n)
    shelf.annotate(one, loss=0.1, acc=0.9)
    shelf.label(one, ok=None)
    assert found(shelf, "loss == 0.1 and acc == 0.9 and ok is none and r == 4") == ["one"]
    assert found(shelf, "loss == 0.5 and acc is none and ok == 'yes' and r == 4", at=then) == ["one"]
    assert found(shelf, "loss is none and ok is none", at="2025-01-01") == ["one"]


def test_contains_takes_letters_of_every_script_in_either_case(shelf: Shelf) -> None:
    config, data = {"w": "\u0416\u0443\u043a"}, {"train.id": "\u00c9tude"}
    shelf.save("m", "one", message="\u00dcBER alles", config=config, data=data)
    for expression in (
        'message ~ "\u00fcber"', 'message ~ "U\u0308ber"', 'w ~ "\u0436\u0423"', 'trained_on ~ "\u00e9TUDE"',
    ):  # fmt: skip
        assert found(shelf, expression) == ["one"], expression
    assert found(shelf, 'message ~ "uber"') == []


def test_every_set_and_removal_of_a_fact_counts_from_when_it_was(shelf: Shelf) -> None:
    """In two models, with and without a value from the save."""
    one = shelf.save("m", "one", metrics={"x": 1.0}, labels={"l": "a"})
    two = shelf.save("other", "two")
    shelf.annotate(one, x=2.0)
    shelf.annotate(two, x=2.0)
    shelf.label(one, l=None)
    shelf.label(two, l="a")
    shelf.label(one, l="b")
    shelf.annotate(one, x=math.nan)
    shelf.annotate(one, x=1.0)
    ones: dict[str, list[str]] = {}
    for n in range(2, shelf.n + 1):
        for expression in ("x == 1", "x == 2", "x is nan", "x is none", "l == 'a'", "l != 'a'", "l is none"):
            names = " ".join(found(shelf, expression, shelf.time(n)))
            ones.setdefault(expression, []).append(names)
    assert ones == {
        "x == 1": ["one", "one", "", "", "", "", "", "", "one"],
        "x == 2": ["", "", "one", "one two", "one two", "one two", "one two", "two", "two"],
        "x is nan": ["", "", "", "", "", "", "", "one", ""],
        "x is none": ["two", "two", "two", "", "", "", "", "", ""],
        "l == 'a'": ["one", "one", "one", "one", "", "two", "two", "two", "two"],
        "l != 'a'": ["", "", "", "", "", "", "one", "one", "one"],
        "l is none": ["two", "two", "two", "two", "one two", "one", "", "", ""],
    }


def test_a_filter_as_of_then_makes_each_set_once(shelf: Shelf) -> None:
    """What a term looks at must not be looked at for each version anew."""
    for i in range(60):
        shelf.save("m", f"v{i}", metrics={f"k{i % 7}": 1.0}, config={"r": i})
    expression = " or ".join(f"k{i % 7} > {i + 5}" for i in range(150))
    made = compile_filter(expression, Scope("m", shelf.time(shelf.n)))
    steps: list[int] = []

    def count() -> int:
        steps[-1] += 1
        return 0

    shelf.connection.set_progress_handler(count, 100)
    for versions in (1, 60):
        steps.append(0)
        sql = f"SELECT v.name FROM versions v WHERE {made.sql} AND v.seq <= {versions}"
        shelf.connection.execute(sql, made.parameters)
    shelf.connection.set_progress_handler(None, 0)
    assert steps[1] < 5 * steps[0]


@pytest.mark.parametrize(
    ("expression", "position", "reason"),
    [
        ("", 1, "expected, not the end"),
        ("   ", 4, "expected, not the end"),
        ("eval_loss", 1, "compares nothing"),
        ("eval_loss <", 12, "a name or a value"),
        ("eval_loss < 0.5 and", 20, "a name or a value"),
        ("eval_loss 0.5", 11, "a comparison"),
        ("eval_loss < 0.5 lora.r", 17, "'and', 'or' or the end"),
        ("(eval_loss < 0.5", 17, "')'"),
        ("eval_loss < 0.5)", 16, "'and', 'or' or the end"),
        ("a == 'x", 6, "never closed"),
        ("`a == 1", 1, "never closed"),
        ("a == b", 6, "quotes"),
        ("1 == 2", 6, "no name"),
        ("created_at > '3 days ago'", 14, "'3 days ago' is no date such as"),
        ("'yesterday' > created_at", 15, "'yesterday' is no date such as"),
        ("created_at in ['yesterday']", 16, "no date"),
        ("created_at < '0001-01-01T00:00+14:00'", 14, "no date"),
        ("created_at < '2026-13'", 14, "no date"),
        ("created_at > 12", 14, "no date"),
        ("'x' ~ a", 7, "left of '~'"),
        ("a < none", 5, "no order"),
        ("a == nan", 6, "a name or a value"),
        ("a in []", 8, "empty"),
        ("a in 1", 6, "'['"),
        ("a in [1 2]", 9, "','"),
        ("a in [b]", 7, "a list holds"),
        ("a in [none]", 7, "a list holds"),
        ("a in [1", 8, "','"),
        ("a not 1", 7, "'in'"),
        ("a is 1", 6, "'none' or 'nan'"),
        ("a == 1x", 7, "runs into"),
        ("a == 1; drop", 7, "means nothing"),
        ("a && b", 3, "means nothing"),
        ("not " * 60 + "a == 1", 205, "nested"),
        ("(" * 60 + "a == 1" + ")" * 60, 52, "nested"),
        ("a == 1 or " * 300, MAX_LENGTH + 1, "longer"),
        ("a == '\ud800'", 7, "Unicode"),
    ],
)
def test_each_unreadable_expression_is_refused_where_it_goes_wrong(
    expression: str, position: int, reason: str
) -> None:
    with pytest.raises(InvalidExpression) as caught:
        compile_filter(expression)
    assert caught.value.data["position"] == position
    assert reason in str(caught.value.data["reason"])
    str(caught.value).encode()


def test_names_used_are_told_as_written_once() -> None:
    made = compile_filter("metrics.loss < 1 and (lora.r == 8 or `odd key` is none) and lora.r != 2")
    assert made.names_used == ("metrics.loss", "lora.r", "odd key")


def test_names_and_values_never_enter_the_sql() -> None:
    made = compile_filter(
        "`'; DROP TABLE versions; --` == \"'); DELETE FROM refs; --\" and x in ['a\" OR 1']"
    )
    assert "DROP" not in made.sql
    assert "DELETE" not in made.sql
    assert "OR 1" not in made.sql
    assert made.sql.count("?") == len(made.parameters)


def test_a_sort_key_is_one_name() -> None:
    assert "eval_loss" in compile_sort("eval_loss").number.parameters
    assert compile_sort("step").number.sql == "v.step"
    with pytest.raises(InvalidExpression):
        compile_sort("a, b")
    with pytest.raises(InvalidExpression):
        compile_sort("3")


EMPTY = connect(None, RLock())
EMPTY.executescript(SCHEMA)


def runs(expression: str, at: str | None) -> None:
    made = compile_filter(expression, Scope(at=at))
    assert made.sql.count("?") == len(made.parameters)
    assert EMPTY.execute(f"SELECT v.seq FROM versions v WHERE {made.sql}", made.parameters).fetchall() == []


TOKENS = st.sampled_from(
    [
        *sorted(FIELDS - LINEAGE),
        "loss",
        "label.x",
        "`a b`",
        "config.`c`",
        "1",
        "-2.5e3",
        "'t'",
        '"u"',
        "true",
        "none",
    ]
) | st.sampled_from(
    ["and", "or", "not", "in", "is", "(", ")", "[", "]", ",", "==", "!=", "<", "<=", "~", "-inf", "nan", "é"]
)


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.text(max_size=60), st.lists(TOKENS, max_size=14).map(" ".join)),
    st.sampled_from([None, "2026-01-01T00:00:00.000000Z"]),
)
def test_any_text_is_sql_that_runs_or_invalid_expression(text: str, at: str | None) -> None:
    try:
        runs(text, at)
    except InvalidExpression as error:
        position = error.data["position"]
        assert isinstance(position, int)
        assert 1 <= position <= len(text) + 1


NAMES = st.sampled_from([*sorted(FIELDS - LINEAGE - {"created_at"}), "loss", "label.x", "data.`a b`"])
LEAVES = st.one_of(
    st.builds("{} {} 'x'".format, NAMES, st.sampled_from(["==", "!=", "<", ">=", "~"])),
    st.builds("{} < 1 <= {}".format, NAMES, NAMES),
    st.builds("{} in [1, 'x', true]".format, NAMES),
    st.builds("{} is not none".format, NAMES),
    st.builds("created_at {} '2026-02'".format, st.sampled_from(["==", "!=", "<", ">=", "~"])),
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({}) or ({})".format, inner, inner, inner),
    ),
    max_leaves=60,
)


@settings(max_examples=150, deadline=None)
@given(TREES, st.sampled_from([None, "2026-01-01T00:00:00.000000Z"]))
def test_every_sound_expression_within_the_limits_runs(text: str, at: str | None) -> None:
    try:
        compile_filter(text)
    except InvalidExpression as error:
        reason = str(error.data["reason"])
        assume("longer" not in reason and "nested" not in reason)
        raise
    made = compile_filter(text, Scope(at=at))
    EMPTY.execute(f"SELECT v.seq FROM versions v WHERE {made.sql}", made.parameters)


@pytest.mark.parametrize(
    ("piece", "levels"),
    [
        ("(", 50),
        ("not ", 50),
        ("not (", 25),
        ("a<1 and (", 50),
        ("a<1 or a<1 and (", 25),
        ("(a<1 or a<1) and not (a<1 or ", 25),
    ],
)
@pytest.mark.parametrize("at", [None, "2026-01-01T00:00:00.000000Z"])
def test_the_deepest_allowed_nesting_fits_sqlites_parser(piece: str, levels: int, at: str | None) -> None:
    opened = piece.count("(") - piece.count(")")
    runs(piece * levels + "a in [1, 'x']" + ")" * opened * levels, at)
    with pytest.raises(InvalidExpression, match="nested"):
        runs(piece * (levels + 1) + "a in [1, 'x']" + ")" * opened * (levels + 1), at)
