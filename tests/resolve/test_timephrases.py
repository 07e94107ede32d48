"""What phrases for a moment mean, seen from a fixed clock in a fixed zone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemmata.errors import InvalidTime
from stemmata.timephrases import parse_when

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 7, 30, 12, 0, tzinfo=BERLIN)  # a Thursday, summer time


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("2026-03-01T12:00", "2026-03-01T11:00"),
        ("2026-03-01 12:00", "2026-03-01T11:00"),
        ("2026-03-01T12:00Z", "2026-03-01T12:00"),
        ("2026-03-01T12:00 Z", "2026-03-01T12:00"),
        ("2026-03-01T12:00:00.123456+05:30", "2026-03-01T06:30:00.123456"),
        ("2026-03-01 3pm", "2026-03-01T14:00"),
        ("now", "2026-07-30T10:00"),
        ("3 weeks ago", "2026-07-09T10:00"),
        ("3  weeks\tago", "2026-07-09T10:00"),
        ("2 weeks", "2026-07-16T10:00"),
        ("last month", "2026-06-30T10:00"),
        ("2 hours ago", "2026-07-30T08:00"),
        ("yesterday at 3pm", "2026-07-29T13:00"),
        ("yesterday noon", "2026-07-29T10:00"),
        ("monday 14:00", "2026-07-27T12:00"),
        ("22:30", "2026-07-29T20:30"),
        ("half an hour ago", "2026-07-30T09:30"),
        ("90m ago", "2026-07-30T08:30"),
        ("1 hour ago UTC", "2026-07-30T09:00"),
        ("1h30m ago", "2026-07-30T08:30"),
        ("twenty minutes ago", "2026-07-30T09:40"),
        ("2026-03-01t12:00:00z", "2026-03-01T12:00"),
        ("2026-03-01T12:00:00 UTC", "2026-03-01T12:00"),
        ("2026-03-01T14:00 CET", "2026-03-01T13:00"),
        ("Sun Mar  1 12:00:00 UTC 2026", "2026-03-01T12:00"),
        ("5pm+02:00", "2026-07-29T15:00"),
        ("1.5 hours ago", "2026-07-30T08:30"),
        ("a year and 2 months ago", "2025-05-30T10:00"),
        ("2 weeks ago at 5pm", "2026-07-16T15:00"),
        ("3d", "2026-07-27T10:00"),
        ("1h", "2026-07-30T09:00"),
        ("9 am monday", "2026-07-27T07:00"),
        ("yesterday 10:00 UTC", "2026-07-29T10:00"),
        ("monday 14:00 +05:30", "2026-07-27T08:30"),
        ("2026-03-01 12:00:00.5", "2026-03-01T11:00:00.5"),
        ("Tue Mar  3 12:00:00 2026", "2026-03-03T11:00"),
        ("Tue, 03 Mar 2026 12:00:00 +0100", "2026-03-03T11:00"),
    ],
)
def test_a_time_is_a_moment(phrase: str, expected: str) -> None:
    assert parse_when(phrase, NOW, BERLIN) == utc(expected)


@pytest.mark.parametrize(
    ("phrase", "first_after"),
    [
        ("2026-03-01", "2026-03-01T23:00"),
        ("2026/03/01", "2026-03-01T23:00"),
        ("2026-03", "2026-03-31T22:00"),
        ("2025-12", "2025-12-31T23:00"),
        ("yesterday", "2026-07-29T22:00"),
        ("last friday", "2026-07-24T22:00"),
        ("3 march", "2026-03-03T23:00"),
        ("March 2026", "2026-03-31T22:00"),
        ("in march", "2026-03-31T22:00"),
        ("21-Feb-2026", "2026-02-21T23:00"),
        ("5th of november", "2025-11-05T23:00"),
        ("the day before yesterday", "2026-07-28T22:00"),
        ("tuesday, march 3rd, 2026", "2026-03-03T23:00"),
        ("2026-03-01 UTC", "2026-03-02T00:00"),
        ("2026-03-01+01:00", "2026-03-01T23:00"),
        ("2026-03-01-05:00", "2026-03-02T05:00"),
        ("2026-03-01 +02:00", "2026-03-01T22:00"),
        ("yesterday EST", "2026-07-30T05:00"),
        ("20 july Z", "2026-07-21T00:00"),
    ],
)
def test_a_date_means_its_end_in_local_time(phrase: str, first_after: str) -> None:
    assert parse_when(phrase, NOW, BERLIN) == utc(first_after) - timedelta(microseconds=1)


@pytest.mark.parametrize("phrase", ["today", "2026-07-30", "2026-07", "now"])
def test_a_period_not_over_yet_means_now(phrase: str) -> None:
    assert parse_when(phrase, NOW, BERLIN) == NOW


@pytest.mark.parametrize(
    "phrase",
    ["tomorrow", "in 3 days", "2026-07-31", "2027-01", "2026-07-30T12:01", "3pm 2027-01-01", "next week"],
)
def test_the_future_is_refused(phrase: str) -> None:
    with pytest.raises(InvalidTime, match="future"):
        parse_when(phrase, NOW, BERLIN)


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        ("banana", "understood"),
        ("", "empty"),
        ("   ", "empty"),
        ("a", "short"),
        ("2026", "bare number"),
        ("1700000000", "bare number"),
        ("3/4/2026", "either way round"),
        ("03.04.2026", "either way round"),
        ("2026-02-30", "calendar"),
        ("9999-12-31", "calendar"),
        ("yesterday at 25:00", "no clock"),
        ("last week " * 30, "too long"),
        ("monday at 9", "9:00 or 9am"),
        ("3 days ago at 9", "9:00 or 9am"),
        ("march 3 at 14", "9:00 or 9am"),
        ("monday 9", "understood"),
        ("yesterday 9", "understood"),
        ("march 32", "understood"),
        ("31 april", "understood"),
        ("the 3rd", "understood"),
        ("q1 2026", "understood"),
        ("week 12", "understood"),
        ("2 days before 2026-03-01", "understood"),
        ("2 days before yesterday", "understood"),
        ("yesterday or today", "understood"),
        ("friday of march", "understood"),
        ("a year", "understood"),
        ("in 2026", "understood"),
        ("yesterday 10:00 IST", "understood"),
        ("friday 3 march 2026", "that day is a Tuesday"),
        ("2 hours ago at 5pm", "a time of their own"),
    ],
)
def test_nonsense_is_refused_with_its_reason(phrase: str, reason: str) -> None:
    with pytest.raises(InvalidTime) as caught:
        parse_when(phrase, NOW, BERLIN)
    assert reason in str(caught.value.data["reason"])


def test_days_keep_the_clock_and_hours_elapse_across_a_change_to_summer_time() -> None:
    # The night to 2026-03-29 has no 02:00 to 03:00 in Berlin.
    now = datetime(2026, 3, 29, 12, 0, tzinfo=BERLIN)
    assert parse_when("1 day ago", now, BERLIN) == utc("2026-03-28T11:00")
    assert parse_when("24 hours ago", now, BERLIN) == utc("2026-03-28T10:00")
    assert parse_when("2026-03-29", datetime(2026, 4, 1, tzinfo=BERLIN), BERLIN) == utc(
        "2026-03-29T22:00"
    ) - timedelta(microseconds=1)


def test_a_local_time_is_the_zones_own_at_that_date_not_todays_offset() -> None:
    assert parse_when("2026-01-15T12:00", NOW, BERLIN) == utc("2026-01-15T11:00")
    assert parse_when("2026-06-15T12:00", NOW, BERLIN) == utc("2026-06-15T10:00")


def test_without_a_zone_the_systems_own_is_used() -> None:
    expected = datetime(2026, 3, 1, 12, 0).astimezone(UTC)
    assert parse_when("2026-03-01T12:00", NOW) == expected


@pytest.fixture
def posix_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    # Whoever asked before in this process is answered from memory.
    monkeypatch.setattr("tzlocal.unix._cache_tz", None)

    def hold(rule: str) -> None:
        monkeypatch.setenv("TZ", rule)
        time.tzset()

    yield hold
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("CET-1CEST", ["2026-07-29T21:59:59.999999", "2026-07-29T13:00", "2026-01-30T11:00"]),
        ("UTC-3", ["2026-07-29T20:59:59.999999", "2026-07-29T12:00", "2026-01-30T10:00"]),
        ("<+0330>-3:30", ["2026-07-29T20:29:59.999999", "2026-07-29T11:30", "2026-01-30T10:00"]),
    ],
)
def test_a_system_whose_zone_is_a_rule_of_posix_has_local_time_too(
    posix_zone: Callable[[str], None], rule: str, expected: list[str]
) -> None:
    posix_zone(rule)
    found = [parse_when(phrase, NOW) for phrase in ("yesterday", "yesterday at 3pm", "6 months ago")]
    assert found == [utc(text) for text in expected]
    assert parse_when("2 hours ago", NOW) == utc("2026-07-30T08:00")


def test_a_clock_without_a_zone_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="zone"):
        parse_when("now", datetime(2026, 1, 1))


WORDS = st.sampled_from(
    ["ago", "last", "next", "week", "weeks", "days", "3", "17", "hour", "friday", "march", "noon", "at", "pm"]
) | st.sampled_from(["10:30", "2026-02", "in", "the", "of", "T", "Z", "+02:00", "-1", "minutes", "2/3"])


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=5).map(" ".join)))
def test_any_text_is_a_past_moment_or_invalid_time(text: str) -> None:
    try:
        moment = parse_when(text, NOW, BERLIN)
    except InvalidTime:
        return
    assert moment.utcoffset() == timedelta(0)
    assert moment <= NOW
