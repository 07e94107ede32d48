"""Texts line by line: what is shown leads from one to the other, and the work is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stemmata.compare.texts import MAX_BYTES, MAX_LINES, compare_strings, compare_texts

lines = st.lists(st.sampled_from(["a", "b", "", "  c", "+d", "-e", "@@"]), max_size=12)


def applied(before: list[str], hunks: tuple[str, ...]) -> list[str]:
    """What a reader of the format makes of `before`."""
    found: list[str] = []
    at = 0
    for line in hunks:
        if line.startswith("@@ -"):
            begin, _, count = line.split()[1][1:].partition(",")
            start = int(begin) - (0 if count == "0" else 1)
            found += before[at:start]
            at = start
        elif line[0] == "+":
            found.append(line[1:])
        else:
            assert before[at] == line[1:]
            found += [line[1:]] if line[0] == " " else []
            at += 1
    return found + before[at:]


@given(lines, lines)
def test_the_lines_lead_from_one_text_to_the_other(a: list[str], b: list[str]) -> None:
    found = compare_strings("t", "\n".join(a) + "\n", "\n".join(b) + "\n")
    first, second = (x if x != [""] else [] for x in (a, b))
    if first == second:
        assert (found.lines, found.note) == ((), "only the ends of lines differ")
    else:
        assert applied(first, found.lines) == second
        assert len(second) - len(first) == found.added - found.removed


def test_only_what_is_around_a_difference_is_shown() -> None:
    text = [str(n) for n in range(100)]
    found = compare_strings("t", "\n".join(text), "\n".join([*text[:50], "x", *text[51:]]))
    assert found.lines == ("@@ -49,5 +49,5 @@", " 48", " 49", "-50", "+x", " 51", " 52")


def test_what_is_no_text_or_is_long_is_a_note() -> None:
    assert compare_texts("t", b"\xff\xfe", b"a").note == "not text: compared as bytes"
    assert compare_texts("t", b"a\0", b"a").note == "not text: compared as bytes"
    assert "too long" in compare_texts("t", b"x" * (MAX_BYTES + 1), b"y").note
    assert "too many" in compare_texts("t", b"x\n" * (MAX_LINES + 1), b"y\n" * 3).note
    assert compare_texts("t", b"a\r\nb\r\n", b"a\nb").note == "only the ends of lines differ"


def test_a_long_text_with_one_difference_is_compared() -> None:
    text = [f"line {n}" for n in range(20_000)]
    found = compare_texts("t", "\n".join(text).encode(), "\n".join([*text, "new"]).encode())
    assert found.lines == ("@@ -19999,2 +19999,3 @@", " line 19998", " line 19999", "+new")
