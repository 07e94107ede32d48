"""Both ways to check an index agree: with numpy, and without it where the rows are few."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata import packindex
from stemmata.codecs.dtypes import MAX_RAW_LENGTH
from stemmata.codecs.frames import MAX_OVERHEAD, MAX_STORED, MIN_STORED
from stemmata.packindex import ROW, NoIndex, TooLarge

START = 8
lengths = st.integers(MIN_STORED, 200)
rows = st.dictionaries(st.binary(min_size=32, max_size=32), lengths, max_size=12)
spoiled = st.sampled_from(
    ["nothing", "order", "twice", "gap", "overlap", "end", "huge", "raw", "longer", "shorter", "far"]
)


def index(made: dict[bytes, int], order: list[int]) -> list[list[Any]]:
    """A sound index whose objects lie in the pack in any order."""
    found = []
    at = START
    for place in order:
        digest = sorted(made)[place]
        found.append([digest, at, made[digest], 1000, bytes(8)])
        at += made[digest]
    return sorted(found)


def spoil(table: list[list[Any]], how: str) -> int:
    """Break one thing; where the index would begin."""
    end = START + sum(row[2] for row in table)
    if not table:
        return end + (how == "end")
    row = table[len(table) // 2]
    match how:
        case "order":
            table.reverse()
        case "twice":
            table.append(list(table[-1]))
        case "gap":
            row[1] += 1
        case "overlap":
            row[1] -= 1
        case "end":
            end += 1
        case "huge":
            row[2] = MAX_STORED + 1
        case "raw":
            row[3] = MAX_RAW_LENGTH + 1
        case "longer":
            row[2] = row[3] + MAX_OVERHEAD + 1
        case "shorter":
            row[2] = MIN_STORED - 1
        case "far":
            row[1] = (1 << 64) - 1
    return end


def verdict(check: Any, data: bytes, end: int) -> tuple[type[Exception] | None, str]:
    try:
        check(data, end, START)
    except (NoIndex, TooLarge) as error:
        return type(error), str(error)
    return None, ""


@given(st.data(), rows, spoiled)
def test_few_rows_are_judged_as_many_are(data: st.DataObject, made: dict[bytes, int], how: str) -> None:
    order = data.draw(st.permutations(range(len(made))))
    table = index(made, list(order))
    end = spoil(table, how)
    packed = b"".join(ROW.pack(*row) for row in table)
    few = verdict(packindex._check_few, packed, end)
    assert few == verdict(packindex._check_many, packed, end)
    if how == "nothing":
        assert few == (None, "")


@pytest.mark.parametrize("how", ["twice", "gap", "overlap", "end", "huge", "raw", "longer", "shorter", "far"])
def test_each_fault_is_found(how: str) -> None:
    table = index({bytes([n]) * 32: 40 + n for n in range(5)}, [3, 1, 4, 0, 2])
    end = spoil(table, how)
    assert verdict(packindex._check_few, b"".join(ROW.pack(*row) for row in table), end)[0] is not None
