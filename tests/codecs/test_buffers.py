"""Memory that is lent: as long as asked for, nobody else's meanwhile, and used again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.codecs import buffers
from stemmata.codecs.buffers import Buffers

MIB = 1 << 20


@given(st.integers(0, 300 * MIB))
def test_what_is_lent_is_as_long_as_asked_for(size: int) -> None:
    assert len(Buffers().lend(size)) == size


@pytest.mark.parametrize("k", range(16, 28))
def test_around_the_sizes_that_there_are(k: int) -> None:
    step = (1 << k) + (1 << k) // 32
    for size in (step - 1, step, step + 1, (1 << k) - 1, 1 << k, (1 << k) + 1):
        assert len(Buffers().lend(size)) == size


def test_what_was_given_back_is_lent_again() -> None:
    some = Buffers()
    first = some.lend(10 * MIB)
    first[0] = 7
    some.give_back(first)
    assert some.lend(9 * MIB)[0] == 7


def test_what_is_out_is_lent_to_nobody_else() -> None:
    some = Buffers()
    lent = [some.lend(MIB) for _ in range(5)]
    for n, view in enumerate(lent):
        view[:] = bytes([n]) * MIB
    assert [view[-1] for view in lent] == [0, 1, 2, 3, 4]


def test_a_part_stands_for_the_whole() -> None:
    some = Buffers()
    whole = some.lend(2 * MIB)
    whole[5] = 9
    part = whole[5:10]
    some.instead(whole, part)
    some.give_back(whole)
    assert some.lend(2 * MIB)[5] == 0, "still lent, by its part"
    some.give_back(part)
    assert some.lend(2 * MIB)[5] == 9


def test_little_waits_for_being_lent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_KEPT", 4 * MIB)
    some = Buffers()
    for view in [some.lend(MIB) for _ in range(10)]:
        some.give_back(view)
    some.give_back(some.lend(8 * MIB))
    assert sum(map(len, some._free)) <= 4 * MIB + 9 * MIB


def test_small_memory_is_the_caller_s_own() -> None:
    some = Buffers()
    view = some.lend(100)
    some.give_back(view)
    some.give_back(view)
    assert some.lend(100) is not view
