"""Whole writes and reads of opened files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stemmata.storage.descriptors import write_all


def test_what_is_long_is_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system takes less than it is given."""
    whole, taken = os.write, list[int]()

    def half(fd: int, data: memoryview) -> int:
        count = whole(fd, data[: max(1, len(data) // 2)] if len(taken) % 3 == 2 else data)
        taken.append(count)
        return count

    content = os.urandom((5 << 20) + 3)
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(os, "write", half)
    write_all(fd, content)
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == content
    assert max(taken) == 1 << 20
