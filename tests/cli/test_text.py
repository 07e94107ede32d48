"""Words and numbers for people."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.cli import text

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1536, "1.5 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
    ],
)
def test_sizes_are_decimal_and_never_show_a_thousand(count: int, shown: str) -> None:
    assert text.size(count) == shown


def test_the_largest_unit_takes_everything() -> None:
    assert text.size(10**19) == "10000.0 PB"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.41234567, "0.4123"),
        (0.5, "0.5"),
        (1.2e-05, "1.2e-05"),
        (12.3456, "12.346"),
        (123.456, "123.46"),
        (1234.5678, "1234.6"),
        (0.20000000000000004, "0.2"),
        (1234.0, "1234"),
        (123456.7, "123457"),
        (12345678.0, "1.23e+07"),
        (3, "3"),
        (0.0, "0"),
        (-0.25, "-0.25"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_metrics_are_short_and_keep_what_matters(value: float, shown: str) -> None:
    assert text.number(value) == shown


@given(st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf, -math.inf]))
def test_every_metric_has_a_short_form_that_is_close(value: float) -> None:
    shown = text.number(value)
    assert len(shown) <= 10
    if math.isfinite(value):
        assert math.isclose(float(shown), value, rel_tol=0.006, abs_tol=1e-300)


@pytest.mark.parametrize(
    ("back", "short", "long"),
    [
        (timedelta(seconds=59), "now", "just now"),
        (timedelta(minutes=1), "1m", "1 minute ago"),
        (timedelta(hours=5), "5h", "5 hours ago"),
        (timedelta(days=6), "6d", "6 days ago"),
        (timedelta(days=21), "3w", "3 weeks ago"),
        (timedelta(days=100), "3mo", "3 months ago"),
        (timedelta(days=800), "2y", "2 years ago"),
        (timedelta(hours=-1), "now", "just now"),
    ],
)
def test_ages(back: timedelta, short: str, long: str) -> None:
    stamp = (NOW - back).isoformat()
    assert text.age(stamp, NOW) == short
    assert text.ago(stamp, NOW) == long


def test_a_time_that_is_none_is_said_so() -> None:
    assert text.age("yesterday-ish", NOW) == "?"
    assert text.ago("", NOW) == "at an unknown time"


@given(st.text())
def test_plain_text_cannot_steer_a_terminal(words: str) -> None:
    shown = text.plain(words)
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert len(shown) == len(words)


def test_plain_text_keeps_every_script() -> None:
    assert text.plain("модель-模型-मॉडल-🙂") == "модель-模型-मॉडल-🙂"
    assert text.plain("a\nb", lines=True) == "a\nb"


def test_settings_are_shown_in_full() -> None:
    assert text.setting(2.1e-05) == "2.1e-05"
    assert text.setting([True, None, "q_proj"]) == "[true, none, q_proj]"


def test_epochs() -> None:
    assert [text.epoch(e) for e in (None, 3.0, 0.5, 2.6666)] == ["", "3", "0.5", "2.67"]


def test_a_column_of_metrics_lines_up() -> None:
    assert text.numbers([0.12, 0.8, None, 0.30001]) == ["0.12", "0.80", "", "0.30"]
    assert text.numbers([1.0, 2.0]) == ["1", "2"]
    assert text.numbers([math.nan, 0.25]) == ["nan", "0.25"]
    assert text.numbers([1e-9, 0.25]) == ["1e-09", "0.25"]
    assert text.numbers([]) == []


def test_two_numbers_that_differ_never_look_alike() -> None:
    assert text.apart(6.32153, 6.3215) == ("6.32153", "6.32150")
    assert text.apart(0.5, 0.25) == ("0.5", "0.25")
    assert text.apart(None, 1) == ("–", "1")
    assert text.apart(1.0, 1.0) == ("1", "1")
    first, second = text.apart(0.1, 0.1 + 2**-56)
    assert first != second


@pytest.mark.parametrize(
    ("relative", "shown"),
    [
        (0.0, "0 %"),
        (1.2e-5, "0.0012 %"),
        (0.1234, "12 %"),
        (0.999, "100 %"),
        (3.2, "320 %"),
        (47.0, "47-fold"),
    ],
)
def test_a_share_that_weights_moved(relative: float, shown: str) -> None:
    assert text.share_moved(relative) == shown


def test_weights_that_moved_from_zero_have_no_share() -> None:
    assert text.share_moved(None) == text.share_moved(float("inf")) == "from zero"
