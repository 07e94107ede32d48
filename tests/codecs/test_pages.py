"""New memory: zero, as long as asked for, and in huge pages only where no host takes back what is free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stemmata.codecs import pages

MIB = 1 << 20
QUIET = "01100101" + 120 * "0"
"""The features of a balloon that tells its host of free memory."""


@pytest.fixture
def balloons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this machine's balloons are looked for."""
    monkeypatch.setattr(pages, "_BALLOONS", tmp_path)
    pages.huge_pages_pay.cache_clear()
    yield tmp_path
    pages.huge_pages_pay.cache_clear()


def balloon(folder: Path, name: str, features: str) -> None:
    (folder / name).mkdir()
    (folder / name / "features").write_text(features)


def test_a_host_that_takes_back_free_memory_is_known(balloons: Path) -> None:
    balloon(balloons, "virtio0", 128 * "0" + "\n")
    balloon(balloons, "virtio3", QUIET + "\n")
    assert not pages.huge_pages_pay()


@pytest.mark.parametrize("features", [QUIET[:5] + "0" + QUIET[6:], "", "11111", "\xff" * 128])
def test_any_other_balloon_is_none_of_that(balloons: Path, features: str) -> None:
    balloon(balloons, "virtio0", features)
    assert pages.huge_pages_pay()


def test_a_machine_without_a_balloon(balloons: Path) -> None:
    balloons.rmdir()
    assert pages.huge_pages_pay()


@pytest.mark.parametrize("reporting", [False, True])
@pytest.mark.parametrize("size", [1, MIB + 1, 9 * MIB])
def test_memory_of_its_own(balloons: Path, size: int, reporting: bool) -> None:
    if reporting:
        balloon(balloons, "virtio0", QUIET)
    made = pages.fresh(size)
    assert len(made) == size
    assert made[0] == made[size - 1] == 0
    arrays = [pages.fresh_array(size) for _ in range(2)]
    for value, array in enumerate(arrays):
        array[:] = value
    assert [len(array) for array in arrays] == [size, size]
    assert [int(array[-1]) for array in arrays] == [0, 1]


def test_for_want_of_memory_no_file_is_blamed() -> None:
    for ask in (pages.fresh, pages.small):
        with pytest.raises(MemoryError):
            ask(1 << 60)


def test_what_the_kernel_refuses_is_memory_all_the_same(
    balloons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.mmap, "MADV_HUGEPAGE", 12345, raising=False)
    assert len(pages.fresh(MIB)) == MIB
