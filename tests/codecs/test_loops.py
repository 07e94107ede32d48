"""The inner loops on any memory: what they refuse, and that they do the same with numpy and without."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from kernel_choices import WAYS, use
from stemmata.codecs import loops, plain
from stemmata.codecs.dtypes import dtype_of

F32, BF16 = dtype_of("F32"), dtype_of("BF16")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    use(request.param, monkeypatch)
    module: ModuleType = request.param
    return module


def numbers(count: int) -> memoryview:
    return memoryview(np.random.default_rng(count).normal(size=count).astype("<f4").tobytes())


def test_two_that_are_held_side_by_side_are_of_one_length(way: ModuleType) -> None:
    one, other = numbers(9), numbers(8)
    with pytest.raises(ValueError):
        loops.moments(one, F32, other, F32)
    with pytest.raises(ValueError):
        loops.moments(one, F32, other, BF16)
    with pytest.raises(ValueError):
        loops.copy(one, memoryview(bytearray(len(other))))
    with pytest.raises(ValueError):
        loops.copy(one[:1], memoryview(bytearray(len(other))))


def test_what_may_not_be_written_to_is_not(way: ModuleType) -> None:
    target = bytes(36)
    with pytest.raises((BufferError, ValueError)):
        loops.copy(numbers(9), memoryview(target))
    assert target == bytes(36)


def test_what_is_copied_is_there(way: ModuleType) -> None:
    target = memoryview(bytearray(40))
    loops.copy(numbers(9), target[2:38])
    assert bytes(target) == b"\0\0" + bytes(numbers(9)) + b"\0\0"


def test_all_ways_come_to_the_same(way: ModuleType) -> None:
    data, base = numbers(3000), numbers(3001)[4:]
    planes = [bytes(plane) for plane in loops.split(data, F32)]
    assert planes[0] == bytes(
        (int.from_bytes(data[4 * k : 4 * k + 4], "little") << 1 | data[4 * k + 3] >> 7) & 255
        for k in range(3000)
    )
    rounded = loops.narrow(data, BF16)
    assert rounded is not None
    halves = np.frombuffer(data, "<f4").view("<u4").astype("<u8")
    assert bytes(rounded) == ((halves + 0x7FFF + (halves >> 16 & 1)) >> 16).astype("<u2").tobytes()
    assert loops.same(data, bytes(data))
    assert not loops.same(data, base)
    assert loops.delta_tokens(data, base, F32) == 3000
    assert loops.delta_tokens(data, data, F32) == 0


def test_little_is_decoded_in_python_until_it_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", "stemmata.codecs.payloads"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(plain, "_left", 3 * plain.MOST)
    assert not plain.reads(plain.MOST + 1), "at a time"
    assert [plain.reads(plain.MOST) for _ in range(5)] == [True, True, True, False, False]


def test_what_is_compiled_counts_only_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy")
    monkeypatch.setitem(sys.modules, "stemmata.codecs.payloads", ModuleType("payloads"))
    assert plain.suits(80), "it is being imported"
    monkeypatch.setattr(sys.modules["stemmata.codecs.payloads"], "_own", object(), raising=False)
    assert not plain.suits(80)
