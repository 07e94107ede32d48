"""Tables that fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stemmata.cli.styled import Text, cell_len
from stemmata.cli.tables import Column, fit, pairs, table

words = st.text(st.characters(categories=("L", "N", "P")), max_size=30)


def column(title: str, cells: list[str], **how: object) -> Column:
    made = Column(title, **how)  # type: ignore[arg-type]
    for cell in cells:
        made.add(cell)
    return made


@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=6), st.integers(40, 140))
def test_no_line_is_wider_than_asked(rows: list[tuple[str, str, str]], width: int) -> None:
    columns = [
        column("a", [r[0] for r in rows], shrink=8),
        column("b", [r[1] for r in rows], rank=2, right=True),
        column("c", [r[2] for r in rows], rank=1, shrink=8),
    ]
    for line in table(columns, width).plain.split("\n"):
        assert cell_len(line) <= width
        assert line == line.rstrip() or line.endswith("\N{NO-BREAK SPACE}")


def test_the_least_important_column_leaves_first() -> None:
    columns = [
        column(t, ["x" * 10], rank=r) for t, r in (("keep", 0), ("second", 2), ("first", 3), ("third", 1))
    ]
    assert [c.title for c, _ in fit(columns, 34)] == ["keep", "second", "third"]
    assert [c.title for c, _ in fit(columns, 22)] == ["keep", "third"]
    assert [c.title for c, _ in fit(columns, 3)] == ["keep"]


def test_flexible_columns_shrink_before_others_leave() -> None:
    columns = [column("name", ["n" * 40], shrink=10), column("size", ["123"], rank=5)]
    assert [(c.title, w) for c, w in fit(columns, 20)] == [("name", 14), ("size", 4)]


def test_an_empty_column_is_not_shown() -> None:
    columns = [column("id", ["1", "2"]), column("epoch", ["", ""])]
    assert table(columns, 80).plain == "id\n1\n2"


def test_numbers_align_right_and_wide_characters_count_twice() -> None:
    columns = [column("模型", ["情感", "a"]), column("n", ["5", "1234"], right=True)]
    assert table(columns, 80).plain.split("\n") == ["模型     n", "情感     5", "a     1234"]


def test_a_long_value_goes_on_under_itself() -> None:
    rows = [("targets", Text("q_proj k_proj v_proj o_proj")), ("r", Text("8"))]
    assert pairs(rows, 31).plain.split("\n") == [
        "  targets  q_proj k_proj v_proj",
        "           o_proj",
        "  r        8",
    ]


def test_a_value_without_blanks_is_cut_where_it_must_be() -> None:
    lines = pairs([("id", Text("f" * 64))], 40).plain.split("\n")
    assert "".join(line.split()[-1] for line in lines) == "f" * 64
    assert all(len(line) <= 40 for line in lines)
