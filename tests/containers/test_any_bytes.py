"""Whatever happens to a container's bytes: its segments tile it, and nothing is ever raised."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns import cases
from cuts import Memory, cut
from stemmata.containers.cut import plan

STEMS = ["torch", "optimizer", "npz", "npy", "gguf"]


@cache
def sample(kind: str) -> bytes:
    file = io.BytesIO()
    model = torch.nn.Linear(3, 2)
    if kind == "torch":
        flat = torch.arange(10.0)
        torch.save({**model.state_dict(), "b": flat[:4], "c": flat[5:], "h": torch.ones(3).half()}, file)
    elif kind == "optimizer":
        # As AdamW's, whose import alone takes seconds.
        moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(2, 3), "exp_avg_sq": torch.ones(2, 3)}
        torch.save({"state": {0: moments}, "param_groups": [{"lr": 1e-3, "params": [0]}]}, file)
    elif kind == "npz":
        np.savez(file, a=np.ones((2, 3), np.float32), b=np.arange(4))
    elif kind == "npy":
        np.save(file, np.ones((2, 3), np.float32))
    else:
        return (Path(__file__).parent / "reference.gguf").read_bytes()
    return file.getvalue()


def headers(kind: str) -> list[int]:
    """Positions that are looked at when the file is cut: a change elsewhere changes no cut."""
    reader = Memory(sample(kind))
    plan(reader, len(sample(kind)), "file")
    return sorted({at for offset, length in reader.reads for at in range(offset, offset + length)})


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(STEMS))
    data = bytearray(sample(kind))
    where = headers(kind)
    for _ in range(draw(st.integers(1, 4))):
        at = min(draw(st.sampled_from(where)), len(data) - 1)
        change: Any = draw(st.sampled_from(["set", "bit", "insert", "remove", "cut", "copy"]))
        if change == "set":
            data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]) | st.integers(0, 255))
        elif change == "bit":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif change == "remove":
            del data[at : at + draw(st.integers(1, 9))]
        elif change == "cut":
            del data[max(at, 1) :]
        else:
            start = draw(st.sampled_from(where))
            data[at : at + 8] = data[start : start + 8]
        data = data or bytearray(b"P")
    return bytes(data)


@pytest.mark.parametrize("kind", STEMS)
def test_the_samples_are_containers(kind: str) -> None:
    assert cut(sample(kind)).container == ("torch" if kind == "optimizer" else kind)


@settings(max_examples=cases(150, 400))
@given(damaged())
def test_damaged_files_are_tiled_all_the_same(data: bytes) -> None:
    cut(data)


@given(st.sampled_from([b"PK\x03\x04", b"GGUF\x03\0\0\0", b"\x93NUMPY\x01\0"]), st.binary(max_size=300))
def test_any_bytes_behind_a_magic_are_tiled(magic: bytes, rest: bytes) -> None:
    cut(magic + rest)


@pytest.mark.parametrize("kind", STEMS)
def test_every_prefix_is_tiled(kind: str) -> None:
    data = sample(kind)
    for length in range(0, len(data), 7):
        cut(data[:length])
