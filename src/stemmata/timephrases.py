"""Time phrases: what people write for a moment in the past. Owns its meaning in UTC.

The clock and the zone are passed in; nothing here reads a clock. What each form means:

- `2026-03-01T12:00`, `2026-03-01 12:00:30+02:00`: that moment; local time where no zone is written.
- `2026-03-01`, `2026-03`, `yesterday`, `last friday`, `3 march`, `march 2026`: the **end** of that
  day or month in local time, so that a date takes in all that happened on it. A day or month that
  is not over yet (`today`) means now.
- `3 weeks ago`, `last month`, `2 hours ago`: that long before now. Days and longer keep the hands
  of the local clock, hours and shorter count elapsed time, across a change to summer time too.

A zone behind a day (`2026-03-01 UTC`) says whose day it is. Refused as InvalidTime: nonsense, the future,
bare numbers, `3/4/2026`, which names two days, and what has a word or number more than these shapes.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache

from stemmata.errors import InvalidTime

MAX_LENGTH = 200

_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_MOMENT = re.compile(rf"{_DAY.pattern}[ T]\d", re.IGNORECASE)
_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")
_NUMBERS = re.compile(r"[\W\d_]*")
_SLASHED = re.compile(r"\b([0-9]{4})/([0-9]{2})/([0-9]{2})\b")

# What dateparser is asked. It finds a moment in nearly anything, and drops what it cannot place: "monday
# at 9" is September to it, "march 32" is 1932, and of "2 days before yesterday" it takes the second half.
_COUNT = (
    r"(?:\d{1,6}|an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty"
    r"|forty|fifty|sixty|ninety)"
)
_SHORT_UNIT = r"(?:s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?)"
_LONG_UNIT = r"(?:d|days?|w|wks?|weeks?|mo|months?|y|yrs?|years?|decades?)"
_PARTED = rf"\d{{1,4}}\.\d{{1,3}} ?(?:{_SHORT_UNIT}|days?|weeks?)"
_LENGTH = rf"{_COUNT} ?(?:{_SHORT_UNIT}|{_LONG_UNIT})"
_BACK = (
    rf"(?:(?:{_LENGTH}(?:,? ?(?:and )?{_LENGTH}){{0,5}}|{_PARTED}) ago"
    rf"|-?\d{{1,6}} ?(?:{_SHORT_UNIT}|{_LONG_UNIT})|last (?:week|month|year|decade))"
)
_MONTHS = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_WEEKDAYS = (
    r"(?:mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs?(?:day)?)?|fri(?:day)?|sat(?:urday)?"
    r"|sun(?:day)?)"
)
_DAY_OF_MONTH = r"(?:the )?(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"\d{4}"
_DATE = (
    rf"(?:{_DAY_OF_MONTH} (?:of )?{_MONTHS}(?:,? {_YEAR})?|{_MONTHS} {_DAY_OF_MONTH}(?:,? {_YEAR})?"
    rf"|\d{{1,2}}-{_MONTHS}-{_YEAR}|{_YEAR} {_MONTHS} {_DAY_OF_MONTH}|{_YEAR}-\d{{2}}-\d{{2}})"
)
_DAYS = (
    rf"(?:today|yesterday|(?:the )?day before yesterday|(?:(?:on|last) )?{_WEEKDAYS}"
    rf"|(?:on )?(?:{_WEEKDAYS},? )?{_DATE})"
)
_HOUR = r"(?:\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?: ?[ap]\.?m\.?)?|\d{1,2} ?[ap]\.?m\.?)"
_PERIODS = rf"(?:(?:in )?{_MONTHS}(?:,? {_YEAR})?|{_YEAR} {_MONTHS}|this (?:week|month|year))"
_SHAPES = (
    rf"(?:(?:just )?now|(?P<back>{_BACK})(?:,? (?:at )?{_HOUR})?|{_DAYS}(?:,? (?:at )?{_HOUR})?"
    rf"|(?:at )?{_HOUR}(?:,? {_DAYS})?|{_PERIODS}|{_WEEKDAYS} {_MONTHS} {_DAY_OF_MONTH} {_HOUR} {_YEAR})"
)
_TWO_READINGS = re.compile(
    rf"(?<![\d./:-])\d{{1,2}}[./-]\d{{1,2}}(?:[./-]\d+)?(?![\d:])(?! ?{_SHORT_UNIT}\b| ?{_LONG_UNIT}\b)", re.I
)
_CLOCK = re.compile(r"\b(?:(\d+):(\d+)|\d{1,2} ?[ap]\.?m)", re.IGNORECASE)
_ELAPSED = re.compile(rf"(?:\b|\d){_SHORT_UNIT}\b", re.IGNORECASE)
_WEEKDAY = re.compile(rf"\b(?:({_WEEKDAYS}))\b", re.IGNORECASE)
# Names that stand for one zone all over the world; of others (IST, CST, BST) there are several.
_ZONE = re.compile(
    r"(?<=[\d a-z]) ?(Z|UTC|GMT|CES?T|EES?T|WES?T|E[SD]T|M[SD]T|P[SD]T|JST)$"
    # Behind a blank, a clock or a date of ISO alone: "21-Feb-2026" ends in a year.
    r"|(?:(?<= )|(?<=:\d\d)|(?<=[ap]m)|(?<=\d{4}-\d\d-\d\d))((?:UTC)?[+-]\d\d:?\d\d)$",
    re.IGNORECASE,
)
# As `date` prints it: the zone stands before the year.
_INNER_ZONE = re.compile(r"([a-z]{3} [a-z]{3} \d{1,2} [\d:]+) ([a-z]{3,4}) (\d{4})", re.IGNORECASE)
_MINUTES = re.compile(r"(\d) ?m\b(?=.* ago$)", re.IGNORECASE)
_LATER = re.compile(r"tomorrow\b|next \w|in (?:\d{1,3}|an?) ?[a-z]", re.IGNORECASE)
_BARE_HOUR = re.compile(r"\bat \d{1,2}$", re.IGNORECASE)


def parse_when(text: str, now: datetime, tz: tzinfo | None = None) -> datetime:
    """The moment in UTC that `text` means, seen from `now` (aware). `tz`: None is the system's zone.

    Raises InvalidTime.
    """
    if now.tzinfo is None:
        raise ValueError("the clock needs a time zone")
    phrase = _SLASHED.sub(r"\1-\2-\3", " ".join(text.split()))
    try:
        if len(phrase) > MAX_LENGTH:
            raise _refusal(text, "it is too long")
        if not phrase:
            raise _refusal(text, "it is empty")
        if _TWO_READINGS.search(phrase):
            raise _refusal(text, "its day and month could be either way round; write 2026-03-01")
        first, last = _iso(text, phrase, tz) or _phrase(text, phrase, now, tz)
    except (OverflowError, ValueError, OSError):
        raise _refusal(text, "the calendar has no such date") from None
    if first > now:
        raise _refusal(text, "it is in the future")
    return min(last, now.astimezone(UTC))


@cache
def _shapes() -> re.Pattern[str]:
    # Not at import, which most commands do that name no time.
    return re.compile(_SHAPES, re.IGNORECASE)


def _refusal(text: str, reason: str) -> InvalidTime:
    return InvalidTime(text=text[: MAX_LENGTH + 1], reason=reason)


def _to_utc(moment: datetime, tz: tzinfo | None) -> datetime:
    # astimezone() of a naive time asks the system's zone for that very date, so summer time is right.
    if moment.tzinfo is None and tz is not None:
        moment = moment.replace(tzinfo=tz)
    return moment.astimezone(UTC)


def _span(start: date, end: date, tz: tzinfo | None) -> tuple[datetime, datetime]:
    """First and last microsecond of the local days from `start` up to, not including, `end`."""
    first = _to_utc(datetime.combine(start, time.min), tz)
    return first, _to_utc(datetime.combine(end, time.min), tz) - timedelta(microseconds=1)


def _day(start: date, tz: tzinfo | None) -> tuple[datetime, datetime]:
    return _span(start, start + timedelta(days=1), tz)


def _month(year: int, month: int, tz: tzinfo | None) -> tuple[datetime, datetime]:
    following = date(year + 1, 1, 1) if month == 12 else date(year, month + 1, 1)
    return _span(date(year, month, 1), following, tz)


def _iso(text: str, phrase: str, tz: tzinfo | None) -> tuple[datetime, datetime] | None:
    """What ISO 8601 says, first and last moment; None if this is not its form."""
    if match := _DAY.fullmatch(phrase):
        return _day(date(*map(int, match.groups())), tz)
    if match := _MONTH.fullmatch(phrase):
        return _month(int(match[1]), int(match[2]), tz)
    if _NUMBERS.fullmatch(phrase) and not _DAY.match(phrase) and ":" not in phrase:
        raise _refusal(text, "a bare number could be a year, a day or an hour")
    if not _MOMENT.match(phrase):
        return None
    try:
        moment = _to_utc(datetime.fromisoformat(phrase.upper().replace(" +", "+").replace(" Z", "Z")), tz)
    except ValueError:
        return None
    return moment, moment


def _phrase(text: str, phrase: str, now: datetime, tz: tzinfo | None) -> tuple[datetime, datetime]:
    if len(phrase) < 2:
        raise _refusal(text, "it is too short")
    if _LATER.match(phrase):
        raise _refusal(text, "it is in the future")
    phrase = re.sub(r"\bhalf an hour\b", "30 minutes", phrase, flags=re.I)
    if phrase.lower().endswith(" ago"):
        phrase = re.sub(r"(\d[a-z]+)(?=\d)", r"\1 ", phrase, flags=re.I)  # 1h30m
    phrase = re.sub(r"^(\d{4}-\d\d-\d\d)T(?=\d)", r"\1 ", phrase)  # ISO's, with the name of a zone
    phrase = _MINUTES.sub(r"\1 minutes", _INNER_ZONE.sub(r"\1 \3 \2", phrase))
    wording = re.sub(r"\bnoon\b", "12:00", re.sub(r"\bmidnight\b", "00:00", phrase, flags=re.I), flags=re.I)
    if zone := _ZONE.search(wording):
        wording, tz = wording[: zone.start()].rstrip(), _zone(zone[1] or zone[2])
    clock = _CLOCK.search(wording)
    if clock and clock[1] and (int(clock[1]) > 23 or int(clock[2]) > 59):
        # dateparser would drop such a time and answer with the day alone.
        raise _refusal(text, "no clock shows that time")
    shape = _shapes().fullmatch(wording)
    if shape is None and _BARE_HOUR.search(wording):
        raise _refusal(text, "an hour is written as 9:00 or 9am")
    if shape is None:
        raise _refusal(text, "it cannot be understood")
    length_back = shape["back"] is not None
    elapsed = length_back and _ELAPSED.search(shape["back"]) is not None
    if elapsed and clock:
        raise _refusal(text, "hours back end at a time of their own")
    base = now.astimezone(UTC) if elapsed else (now.astimezone(tz) if tz else now.astimezone())
    found = _ask_dateparser(wording, base.replace(tzinfo=None))
    if found is None:
        raise _refusal(text, "it cannot be understood")
    moment, period = found
    if elapsed:
        moment = moment.replace(tzinfo=UTC)
    named = _WEEKDAY.search(wording)
    if named and moment.strftime("%a").lower() != named[1][:3].lower():
        raise _refusal(text, f"that day is a {moment:%A}")
    if not length_back and not clock:
        if period == "day":
            return _day(moment.date(), tz)
        if period == "month":
            return _month(moment.year, moment.month, tz)
        if period == "year":
            return _span(date(moment.year, 1, 1), date(moment.year + 1, 1, 1), tz)
    utc = _to_utc(moment, tz)
    return utc, utc


def _zone(name: str) -> tzinfo:
    from dateparser.timezone_parser import pop_tz_offset_from_string

    if name.upper() in ("Z", "UTC", "GMT"):
        return UTC
    _, found = pop_tz_offset_from_string(f"12:00 {name}")
    if not isinstance(found, tzinfo):
        raise ValueError(f"no zone is named {name}")
    return found


def _ask_dateparser(wording: str, base: datetime) -> tuple[datetime, str] | None:
    """dateparser's reading, seen from the naive `base`, and the period that it takes it for."""
    # Imported here: it costs a tenth of a second, and most commands name no time.
    from dateparser.date import DateDataParser

    parser = DateDataParser(
        # One language, so that what a phrase means depends on no guess.
        languages=["en"],
        settings={
            "RELATIVE_BASE": base,
            # The hands of a clock are given and asked for. Else it would name the system's zone, and cannot
            # where TZ is a rule of POSIX: CET-1CEST.
            "TIMEZONE": "UTC",
            "PREFER_DATES_FROM": "past",
            "PARSERS": ["relative-time", "absolute-time"],
            "RETURN_TIME_AS_PERIOD": True,
        },
    )
    found = parser.get_date_data(wording)
    return None if found is None or found.date_obj is None else (found.date_obj, str(found.period))
