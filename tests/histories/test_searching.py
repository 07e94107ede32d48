"""The search alone: right for every line, every planted fault and everything that cannot be judged."""

from __future__ import annotations

import math
from collections.abc import Container

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.histories.searching import Search


def searched(count: int, first_bad: int, untestable: Container[int] = ()) -> tuple[Search, list[int]]:
    search, asked = Search(count), []
    while (number := search.next) is not None:
        assert number not in asked
        asked.append(number)
        search.take(number, "skip" if number in untestable else "bad" if number >= first_bad else "good")
    return search, asked


@pytest.mark.parametrize("first_bad", range(64))
def test_of_64_versions_every_planted_one_is_found_in_6(first_bad: int) -> None:
    search, asked = searched(64, first_bad)
    assert search.suspects == [first_bad]
    assert len(asked) == 6


@given(st.integers(1, 3000), st.data())
def test_no_more_are_judged_than_halving_takes(count: int, data: st.DataObject) -> None:
    first_bad = data.draw(st.integers(0, count - 1))
    begun = Search(count)
    search, asked = searched(count, first_bad)
    assert search.suspects == [first_bad]
    assert len(asked) <= math.ceil(math.log2(count)) == begun.steps_left
    assert count - 1 not in asked, "the last one was said to be bad"


@given(st.integers(1, 60), st.data())
def test_what_cannot_be_judged_leaves_exactly_what_is_in_doubt(count: int, data: st.DataObject) -> None:
    first_bad = data.draw(st.integers(0, count - 1))
    untestable = data.draw(st.sets(st.integers(0, count - 1)))
    search, _ = searched(count, first_bad, untestable)
    # From the last one that can be seen to be good to the first one that can be seen to be bad.
    low = max((n for n in range(first_bad) if n not in untestable), default=-1)
    high = min(n for n in range(first_bad, count) if n not in untestable or n == count - 1)
    assert search.suspects == list(range(low + 1, high + 1))


@given(st.integers(200, 2000), st.integers(0, 100), st.data())
def test_a_broken_stretch_is_left_behind_in_few_steps(count: int, width: int, data: st.DataObject) -> None:
    """Doubling its steps, it does not try every one of them while others may be judged."""
    start = data.draw(st.integers(0, count - width - 1))
    stretch = range(start, start + width)
    first_bad = data.draw(
        st.integers(0, count - 1).filter(lambda n: n not in range(start, start + width + 1))
    )
    search, asked = searched(count, first_bad, stretch)
    assert search.suspects == [first_bad]
    halving, doubling = math.ceil(math.log2(count)), 2 * math.ceil(math.log2(width + 1)) + 3
    assert len(asked) <= halving * (1 + doubling)
    if width:
        assert sum(n in stretch for n in asked) <= halving * doubling


def test_what_contradicts_the_rest_changes_nothing() -> None:
    search = Search(10)
    search.take(4, "bad")
    search.take(7, "good")
    assert search.suspects == [0, 1, 2, 3, 4]
