"""Words with styles: cut, joined and shown as rich would do it, which knows every character's width."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich import text as rich_text

from stemmata.cli.styled import Text, cell_len, escaped, fold

words = st.text(st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs")), max_size=24)
styles = st.sampled_from(["", "bold", "dim", "cyan", "bold green"])
pieces = st.lists(st.tuples(words, styles), max_size=5)


def made(parts: list[tuple[str, str]], style: str = "") -> Text:
    text = Text(style=style)
    for piece, its_style in parts:
        text.append(piece, its_style)
    return text


def of_rich(text: Text) -> rich_text.Text:
    return rich_text.Text.assemble(*text.parts)


def characters(text: Text) -> list[tuple[str, str]]:
    return [(character, style) for piece, style in text.parts for character in piece]


@given(pieces)
def test_it_is_as_wide_as_rich_says(parts: list[tuple[str, str]]) -> None:
    assert made(parts).cell_len == of_rich(made(parts)).cell_len


@given(pieces, st.integers(1, 40))
def test_it_is_truncated_as_rich_does(parts: list[tuple[str, str]], width: int) -> None:
    expected = of_rich(made(parts))
    expected.truncate(width, overflow="ellipsis")
    found = made(parts).truncate(width)
    assert found.plain == expected.plain
    assert cell_len(found.plain) <= width


@given(pieces, styles, st.integers(0, 60), st.integers(0, 60))
def test_a_slice_keeps_the_styles(parts: list[tuple[str, str]], style: str, start: int, stop: int) -> None:
    text = made(parts, style)
    assert characters(text[start:stop]) == characters(text)[start:stop]


@given(pieces, pieces)
def test_what_is_joined_keeps_its_styles(one: list[tuple[str, str]], two: list[tuple[str, str]]) -> None:
    first, second = made(one), made(two, "dim")
    assert characters(made(one).append_text(second)) == characters(first) + characters(second)


@given(pieces, st.integers(16, 60))
def test_folding_loses_nothing_but_blanks_and_is_never_too_wide(
    parts: list[tuple[str, str]], room: int
) -> None:
    text = made(parts)
    lines = fold(text, room)
    assert all(line.cell_len <= room for line in lines)
    assert "".join(line.plain for line in lines).replace(" ", "") == text.plain.replace(" ", "")


def test_a_style_is_attributes_and_one_colour() -> None:
    line = Text("a", "bold").append("b", "green").append("c", "dim cyan").append("\n").append("d")
    assert escaped(line, colours=True) == (
        "\x1b[1ma\x1b[0m\x1b[1;32mb\x1b[0m\x1b[1;2;36mc\x1b[0m\x1b[1m\n\x1b[0m\x1b[1md\x1b[0m"
    )
    assert escaped(Text("a", "bold red").append("b", "dim"), colours=False) == (
        "\x1b[1ma\x1b[0m\x1b[1;2mb\x1b[0m"
    )
    assert escaped(Text("plain"), colours=True) == "plain"


def test_what_moves_the_cursor_is_left_out() -> None:
    assert Text("a\rb\bc\x07\vd\fe\nf").plain == "abcde\nf"
