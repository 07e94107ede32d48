"""The table of statistics: what goes in comes out to 2e-9; what is no table is refused."""

from __future__ import annotations

import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.compare import statistics
from stemmata.compare.statistics import Movement, TensorStatistics, together
from stemmata.errors import HostileData

numbers = st.floats(allow_nan=True, allow_infinity=True)
counts = st.integers(0, 2**53)
movements = st.builds(Movement, numbers, numbers, numbers, numbers, numbers, counts)
rows = st.builds(
    TensorStatistics, counts, counts, numbers, numbers, numbers, numbers, numbers, st.none() | movements
)


def _flat(row: TensorStatistics) -> list[float]:
    parts = [getattr(row, f) for f in row.__struct_fields__]
    moved = parts.pop()
    return parts + ([] if moved is None else [getattr(moved, f) for f in moved.__struct_fields__])


@given(st.dictionaries(st.integers(0, 2**40), rows, max_size=6))
def test_what_goes_in_comes_out(table: dict[int, TensorStatistics]) -> None:
    found = statistics.decode(statistics.encode(table))
    assert list(found) == sorted(table)
    for number, row in table.items():
        assert (found[number].movement is None) == (row.movement is None)
        assert _flat(found[number]) == pytest.approx(_flat(row), rel=3e-9, abs=1e-300, nan_ok=True)


@given(st.binary(max_size=400))
def test_what_is_no_table_is_refused_or_harmless(data: bytes) -> None:
    try:
        found = statistics.decode(data)
    except HostileData:
        return
    # 14 numbers a row, behind three: no more comes out than was put in.
    assert 8 * (3 + 14 * len(found)) <= len(data)


@pytest.mark.parametrize(
    "head",
    [(1.0, 1.0, 14.0), (1.0, -1.0, 14.0), (1.0, 2.0, 7.0), (1.0, math.inf, 14.0), (1.0, math.nan, 14.0)],
)
def test_rows_that_are_not_there_are_refused(head: tuple[float, float, float]) -> None:
    with pytest.raises(HostileData):
        statistics.decode(struct.pack("<3d", *head))


def test_a_newer_table_with_more_columns_is_read() -> None:
    row = TensorStatistics(0, 1, 2.0, 3.0, 4.0, 5.0, 6.0, Movement(7.0, 8.0, 9.0, 10.0, 0.5, 11))
    view = statistics.encode({3: row})
    head = struct.pack("<3d", 2.0, 1.0, 15.0)
    assert statistics.decode(head + view[24:] + struct.pack("<d", 99.0)) == {3: row}


def test_movements_of_several_tensors_are_those_of_all_elements() -> None:
    import numpy as np

    random = np.random.default_rng(0)
    a = [random.normal(size=50) for _ in range(3)]
    b = [x + random.normal(size=50) * 0.1 for x in a]
    b[2] = a[2].copy()

    def movement(x: object, y: object) -> Movement:
        p, q = np.asarray(x), np.asarray(y)
        norms = float(np.linalg.norm(p) * np.linalg.norm(q))
        return Movement(
            float(np.linalg.norm(q - p)),
            float(np.linalg.norm(p)),
            float(np.linalg.norm(q)),
            float(np.abs(q - p).max()),
            float(p @ q) / norms,
            int((p == q).sum()),
        )

    found = together(movement(x, y) for x, y in zip(a, b, strict=True))
    assert found is not None
    whole = movement(np.concatenate(a), np.concatenate(b))
    assert msgspec.structs.astuple(found) == pytest.approx(msgspec.structs.astuple(whole), rel=1e-12)
    assert together([]) is None


def test_nothing_is_nothing_and_from_zero_is_beyond_any_share() -> None:
    assert Movement(0.0, 0.0, 0.0, 0.0, math.nan, 4).relative == 0
    assert Movement(1.0, 0.0, 1.0, 1.0, math.nan, 0).relative == math.inf
    assert Movement(1.0, 0.0, 1.0, 1.0, math.nan, 0).to_dict()["relative"] is None


def test_numbers_too_large_to_square_have_no_angle() -> None:
    import numpy as np

    from stemmata.codecs.dtypes import dtype_of
    from stemmata.codecs.moments import Moments

    a, b = np.array([1e200, 1e200]), np.array([1e200, 1.1e200])
    found = Moments.of(b.view(np.uint8), dtype_of("F64"), a.view(np.uint8))
    row = statistics.of_moments(found, compared=True)
    assert row.movement is not None
    assert math.isnan(row.movement.cosine)
    assert row.movement.largest == pytest.approx(1e199)
    assert together([row.movement]) is not None
