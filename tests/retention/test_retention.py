"""Policies over histories: what is kept by construction, and that no clock deletes anything."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stemmata.errors import InvalidArgument, NothingKept
from stemmata.ids import VersionId
from stemmata.retention import DAY, Best, Past, Policy, Verdict, judge, length, seconds_of

NOW = 20_000.0 * DAY
FEW = settings(max_examples=settings().max_examples // 3)
"""Histories are slow to make up; the thorough profile has three hundred of each."""
DIRECTIONS = {"loss": "min", "f1": "max"}


def ident(number: int) -> VersionId:
    return VersionId(number.to_bytes(32, "big"))


def past(place: int, days: float | None = None, **more: object) -> Past:
    """The version of that place, made so many days before now."""
    time = None if days is None else NOW - days * DAY
    return Past(ident(place), place, time, **more)  # type: ignore[arg-type]


def ruled(history: list[Past], policy: Policy, now: float | None = NOW) -> list[Verdict]:
    return judge(history, policy, model="m", directions=DIRECTIONS, now=now)  # type: ignore[arg-type]


def kept(history: list[Past], policy: Policy, now: float | None = NOW) -> set[int]:
    found = ruled(history, policy, now)
    return {int.from_bytes(v.version.raw, "big") for v in found if not v.goes}


def line(*days: float | None) -> list[Past]:
    return [past(place, each) for place, each in enumerate(days)]


# --- the rules ------------------------------------------------------------------------------------


def test_each_rule_keeps_what_it_says() -> None:
    history = line(40, 33, 31, 14, 9, 3, 2)
    assert kept(history, Policy.of(last=2)) == {5, 6}
    assert kept(history, Policy.of(within="10d")) == {4, 5, 6}
    weeks = {
        int((NOW - days * DAY) // (7 * DAY)): place for place, days in enumerate((40, 33, 31, 14, 9, 3, 2))
    }
    assert kept(history, Policy.of(every="7d")) == set(weeks.values())
    assert kept(history, Policy.of(last=1, within="10d", every="7d")) == {4, 5, 6} | set(weeks.values())


def test_the_best_are_by_the_direction_and_of_equal_ones_the_earlier() -> None:
    values = [0.5, 0.3, math.nan, 0.3, 0.9, math.inf]
    history = [past(i, 9 - i, metrics={"loss": v, "f1": v}) for i, v in enumerate(values)]
    assert kept(history, Policy.of(best="1:loss")) == {1}
    assert kept(history, Policy.of(best="2:f1")) == {4, 5}
    assert kept(history, Policy.of(best="1:f1:min")) == {1}
    assert kept(history, Policy.of(best=["1:loss", "1:f1"])) == {1, 5}


def test_what_may_still_be_measured_is_no_loser() -> None:
    history = [past(0), past(1, metrics={"loss": 0.5}), past(2, metrics={"loss": 0.1}), past(3)]
    assert kept(history, Policy.of(best="1:loss")) == {2, 3}
    assert any("may still come" in reason for reason in ruled(history, Policy.of(best="1:loss"))[0].kept)


def test_a_verdict_says_why() -> None:
    history = [past(0, 50, metrics={"loss": 1.0}), past(1, 1, metrics={"loss": 0.5}, pins=("tag v1",))]
    stays, goes = ruled(history, Policy.of(last=1, best="1:loss", within="30d"))
    assert stays.kept[-1] == "tag v1"
    assert "one of the last 1" in stays.kept
    assert "best 1 by lowest loss: 0.5" in stays.kept
    assert goes.goes
    for words in ("not one of the last 1", "not of the best 1", "more than 30d older"):
        assert words in goes.why


def test_a_kept_adapter_keeps_its_base_and_what_that_is_loaded_on_but_no_parent() -> None:
    history = [past(0, 9), past(1, 8, base=ident(0)), past(2, 7), past(3, 6, base=ident(1)), past(4, 5)]
    assert kept(history, Policy.of(last=2)) == {0, 1, 3, 4}
    assert kept(history, Policy.of(last=1)) == {4}


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [([math.nan, math.nan], "every loss is NaN"), ([None, None], "no version has the metric 'loss'")],
)
def test_a_policy_that_keeps_nothing_is_refused_though_names_would_stay(
    values: list[float | None], words: str
) -> None:
    history = [
        past(i, metrics={} if v is None else {"loss": v}, pins=("tag x",)) for i, v in enumerate(values)
    ]
    with pytest.raises(NothingKept, match=words):
        ruled(history, Policy.of(best="2:loss"))
    with pytest.raises(NothingKept):
        ruled(history, Policy())
    if values[0] is not None:
        assert kept(history, Policy.of(best="2:loss", last=1)) == {0, 1}  # the tag keeps the other one


def test_the_best_by_a_metric_that_no_version_has_is_refused_beside_other_rules_too() -> None:
    history = [past(i, metrics={"f1": float(i)}) for i in range(4)]
    with pytest.raises(InvalidArgument, match="no version of m has the metric 'loss'"):
        ruled(history, Policy.of(last=1, best="2:loss"))
    assert ruled([], Policy.of(last=1, best="2:loss")) == []
    assert kept(history, Policy.of(last=1, best="1:f1:min")) == {0, 3}


def test_a_model_without_versions_loses_none() -> None:
    assert ruled([], Policy.of(last=1)) == []


@pytest.mark.parametrize(
    "given_",
    [
        {"last": 0}, {"last": True}, {"last": "3"}, {"best": "loss"}, {"best": "0:loss"}, {"best": 1.5},
        {"every": "7"}, {"every": "0d"}, {"every": "-1d"}, {"every": "3 fortnights"}, {"within": "9999y"},
        {"within": True}, {"within": 0},
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused(given_: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        Policy.of(**given_)


@pytest.mark.parametrize(
    "stored", [None, [], {}, "last 3", {"last": 3, "newer": 1}, {"last": "3"}, {"best": [None]}]
)
def test_a_stored_policy_of_another_form_deletes_nothing(stored: object) -> None:
    with pytest.raises(InvalidArgument):
        Policy.from_setting(stored)


def test_lengths_of_time_are_read_as_they_are_written() -> None:
    for text in ("45s", "90min", "12h", "30d", "2w", "3y"):
        assert length(seconds_of("x", text)) == text
    assert (length(14 * DAY), seconds_of("x", "14d"), seconds_of("x", 60)) == ("2w", 14 * DAY, 60)
    assert str(Best.parse("2:eval/f1:max")) == "2:eval/f1:max"
    assert Best.parse("2:eval:f1") == Best(2, "eval:f1")


# --- clocks ---------------------------------------------------------------------------------------


def test_a_clock_years_ahead_deletes_nothing_wherever_it_stands() -> None:
    honest = (20.0, 15.0, 10.0, 5.0)
    policy = Policy.of(within="30d")
    for place in range(5):
        days = [*honest[:place], -30_000.0, *honest[place:]]
        assert kept(line(*days), policy) == {0, 1, 2, 3, 4}, place


def test_a_version_older_than_its_parent_is_not_deleted_for_it_nor_takes_a_place() -> None:
    policy = Policy.of(within="30d", every="1d")
    assert kept(line(20, 15, 20_000, 10, 5), policy) == {0, 1, 2, 3, 4}
    # It claims the very day of the first: that day keeps its own version all the same.
    assert kept(line(20, 15, 10, 20), Policy.of(every="1d")) == {0, 1, 2, 3}
    # As the newest commit it makes nobody old.
    assert kept(line(20, 15, 10, 20_000), Policy.of(within="1d")) == {0, 1, 2, 3}


def test_the_present_clock_can_only_keep_more() -> None:
    history = line(40, 20, 10, 0)
    policy = Policy.of(within="15d")
    assert kept(history, policy, None) == {2, 3}
    assert kept(history, policy, NOW + 10_000 * DAY) == {2, 3}  # ahead
    assert kept(history, policy, 0.0) == {0, 1, 2, 3}  # behind


def test_background_saves_that_cross_are_no_contradiction() -> None:
    crossed = line(40, 40.2, 39.9, 2, 2.1)
    assert kept(crossed, Policy.of(within="10d")) == {3, 4}


def test_a_version_without_a_time_is_kept_by_rules_of_time() -> None:
    assert kept(line(40, None, 1), Policy.of(within="10d")) == {1, 2}
    assert kept(line(40, None, 1), Policy.of(every="1y")) >= {1, 2}
    assert kept(line(40, 10, None), Policy.of(within="10d")) == {0, 1, 2}


# --- properties -----------------------------------------------------------------------------------

VALUES = st.one_of(st.floats(-2, 2), st.just(math.nan), st.none())
DAYS = st.one_of(st.floats(0, 400), st.floats(-40_000, 20_000), st.none())


@st.composite
def histories(draw: st.DrawFn) -> list[Past]:
    count = draw(st.integers(1, 10))
    found = []
    for place in range(count):
        metrics = {name: v for name in ("loss", "f1") if (v := draw(VALUES)) is not None}
        base = draw(st.none() | st.integers(0, count).map(ident))
        pins = draw(st.sampled_from([(), (), ("alias production",)]))
        found.append(past(place, draw(DAYS), metrics=metrics, base=base, pins=pins))
    return found


POLICIES = st.builds(
    Policy,
    last=st.none() | st.integers(1, 5),
    best=st.lists(st.builds(Best, st.integers(1, 3), st.sampled_from(["loss", "f1"])), max_size=2).map(tuple),
    every=st.none() | st.sampled_from([DAY, 7 * DAY, 30 * DAY]),
    within=st.none() | st.integers(1, 300 * DAY),
)


def kept_or_refused(history: list[Past], policy: Policy, now: float | None = NOW) -> set[int]:
    """What stays; a refusal deletes nothing."""
    try:
        return kept(history, policy, now)
    except (NothingKept, InvalidArgument):
        return {p.place for p in history}


@FEW
@given(histories(), POLICIES, st.randoms(use_true_random=False))
def test_the_order_of_the_input_is_nothing(history: list[Past], policy: Policy, rng: random.Random) -> None:
    other = list(history)
    rng.shuffle(other)
    assert kept_or_refused(other, policy) == kept_or_refused(history, policy)


@FEW
@given(histories(), POLICIES)
def test_what_is_pinned_and_what_is_kept_is_loaded_on_stays(history: list[Past], policy: Policy) -> None:
    stays = kept_or_refused(history, policy)
    assert stays >= {p.place for p in history if p.pins}
    places = {p.version: p.place for p in history}
    for each in history:
        if each.place in stays and each.base in places:
            assert places[each.base] in stays


@FEW
@given(histories(), POLICIES, POLICIES, st.sampled_from(["last", "best", "every", "within"]))
def test_a_wider_policy_keeps_no_less(history: list[Past], policy: Policy, other: Policy, rule: str) -> None:
    if rule == "last":
        wider = replace(policy, last=max(policy.last or 0, other.last or 0) or None)
    elif rule == "best":
        wider = replace(policy, best=(*policy.best, *other.best))
    elif rule == "within":
        wider = replace(policy, within=max(policy.within or 0, other.within or 0) or None)
    else:
        # Only periods that fit into each other are finer and coarser.
        wider = replace(policy, every=policy.every // 7 if policy.every else other.every)
        if policy.every == DAY or policy.every == 30 * DAY:
            wider = replace(policy, every=policy.every // 2)
    try:
        narrow = kept(history, policy)
    except (NothingKept, InvalidArgument):
        return
    assert kept_or_refused(history, wider) >= narrow


@FEW
@given(histories(), POLICIES, st.floats(0, 80_000))
@example([past(0, 2), past(1, 0), past(5, 2)], Policy(every=DAY), NOW / DAY - 3)
def test_no_present_clock_deletes_more_than_none(history: list[Past], policy: Policy, day: float) -> None:
    assert kept_or_refused(history, policy, day * DAY) >= kept_or_refused(history, policy, None)


@FEW
@given(
    st.lists(st.floats(0, 400), min_size=1, max_size=9),
    st.integers(0, 9),
    st.one_of(st.floats(-40_000, 20_000), st.floats(-500, 500)),
    st.builds(Policy, every=st.sampled_from([DAY // 24, DAY, 7 * DAY, 90 * DAY])),
    st.none() | st.integers(1, 300 * DAY),
)
@example([2.0], 1, 0.0, Policy(every=90 * DAY), None)  # two days ahead of the present
def test_one_mad_clock_never_costs_another_version(
    days: list[float], place: int, mad: float, policy: Policy, within: int | None
) -> None:
    policy = replace(policy, within=within)
    honest = [p for i, p in enumerate(line(*sorted(days, reverse=True)))]
    honest = [replace(p, place=2 * p.place) for p in honest]
    present = max(p.time or 0.0 for p in honest)
    wrong = replace(past(999, mad), place=2 * place - 1)
    before = [p.time or 0.0 for p in honest if p.place < wrong.place]
    after = [p.time or 0.0 for p in honest if p.place > wrong.place]
    time = wrong.time or 0.0
    if not ((before and time < before[-1] - DAY) or time > min([*after, present]) + DAY):
        return  # it agrees with the others: then it is a version like any
    assert kept([*honest, wrong], policy, present) >= kept(honest, policy, present) | {999}


@given(st.integers(1, 1000 * 365 * DAY))
def test_every_length_that_is_taken_is_read_again_as_it_is_written(seconds: int) -> None:
    assert seconds_of("within", seconds) == seconds_of("within", length(seconds)) == seconds
