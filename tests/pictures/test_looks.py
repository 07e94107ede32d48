"""Colours that can be told apart and read, words that say enough and no more, labels that keep apart."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.pictures import colours, words


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    light, dark = sorted((colours.luminance(one), colours.luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_the_ramp_goes_one_way_in_lightness_and_words_upon_it_can_be_read(dark: bool) -> None:
    shares = [k / 64 for k in range(65)]
    lights = [colours.luminance(colours.ramp(share, dark=dark)) for share in shares]
    assert all((a < b) if dark else (a > b) for a, b in pairwise(lights))
    assert all(contrast(colours.ramp(s, dark=dark), colours.on_ramp(s, dark=dark)) >= 4.5 for s in shares)
    assert colours.ramp(-1, dark=dark) == colours.ramp(0, dark=dark)
    assert colours.ramp(7, dark=dark) == colours.ramp(1, dark=dark)


@pytest.mark.parametrize("dark", [False, True])
def test_words_and_lines_stand_out_on_the_paper(dark: bool) -> None:
    tones = colours.scheme(dark=dark)
    for paper in (tones.paper, tones.card):
        assert contrast(tones.ink, paper) >= 12
        assert contrast(tones.muted, paper) >= 4.5
        assert contrast(tones.good, paper) >= 4.5
        assert contrast(tones.bad, paper) >= 4.5
    assert all(contrast(run, tones.card) >= 2.9 for run in tones.runs)
    assert len(set(tones.runs)) == colours.RUNS == len(colours.DAY.runs)
    assert all(re.fullmatch("#[0-9a-f]{6}", tone) for tone in tones.words().values())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0 %"),
        (0.0123, "1.2 %"),
        (0.1, "10 %"),
        (0.02, "2.0 %"),
        (0.00031, "0.031 %"),
        (1.62, "162 %"),
        (12.0, "12-fold"),
        (math.inf, "from zero"),
        (1e-9, "1.0e-07 %"),
    ],
)
def test_a_share_has_two_digits(value: float, shown: str) -> None:
    assert words.share(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.41234, "0.4123"),
        (2e-5, "2e-5"),
        (1234567.0, "1.23e6"),
        (math.nan, "NaN"),
        (3.0, "3"),
        (-0.5, "-0.5"),
    ],
)
def test_a_number_has_about_four_digits(value: float, shown: str) -> None:
    assert words.number(value) == shown


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.5, 30))
def test_labels_are_apart_in_their_order_and_inside(wanted: list[float], gap: float) -> None:
    placed = words.apart(wanted, gap, 0.0, 100.0)
    assert all(-1e-6 <= p <= 100 + 1e-6 for p in placed)
    least = min(gap, 100 / max(1, len(wanted) - 1))
    assert all(b - a >= least - 1e-6 for a, b in pairwise(sorted(placed)))
    order = sorted(range(len(wanted)), key=lambda k: wanted[k])
    assert [placed[k] for k in order] == sorted(placed)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_marks_of_an_axis_hold_its_values(low: float, span: float) -> None:
    high = low + span
    marks = words.around(low, high)
    slack = span * 1e-3 + abs(low) * 1e-9
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 2 <= len(marks) <= 14


@given(st.floats(1e-12, 1e6), st.floats(1.01, 1e9))
def test_marks_of_a_logarithm_hold_its_values(low: float, factor: float) -> None:
    marks = words.log_around(low, low * factor)
    assert marks[0] <= low * 1.002
    assert marks[-1] >= low * factor * 0.998
    assert marks == sorted(set(marks))
    assert len(marks) <= 10


def test_names_are_cut_in_the_middle_and_hold_nothing_that_moves_a_cursor() -> None:
    assert words.clipped("a" * 10 + "b" * 10, 9) == "aaaa…bbbb"
    assert words.printable("a\x1b[2Jb\u202ec") == "a�[2Jb�c"
    assert words.listed(["a", "b", "c", "d"]) == "a, b and 2 more"
    assert words.ranges([0, 1, 2, 5, 7, 8]) == "0–2, 5, 7, 8"


@pytest.mark.parametrize(
    ("low", "high"), [(2.07, 4.33), (3.0, 9.0), (1.01, 1.02), (0.1, 1000.0), (1e-9, 5.0)]
)
def test_a_logarithmic_axis_has_round_marks_however_short_it_is(low: float, high: float) -> None:
    marks = words.log_ticks(low, high)
    assert 2 <= len(marks) <= 7
    assert all(low * 0.99 <= mark <= high * 1.01 for mark in marks)
    assert all(len(words.number(mark)) <= 5 for mark in marks)
