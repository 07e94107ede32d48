"""A snapshot has the tensors' bytes as they were, in order, at the price of one temporary copy at most."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from stemmata.hf import snapshot
from stemmata.hf.snapshot import Copier, HeldBytes, LiveBytes, hold, size_of

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def odd() -> list[Any]:
    """Every kind of tensor that may stand in a state."""
    whole = torch.arange(600.0).reshape(20, 30)
    return [
        whole,
        whole[3],
        whole[:, 4],
        whole.t(),
        torch.empty(0, 3),
        torch.tensor(5, dtype=torch.int64),
        torch.tensor([True, False, True]),
        torch.tensor([1.5, float("nan"), -0.0], dtype=torch.bfloat16),
        torch.tensor([1 + 2j, 3 - 4j]),
        torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
        torch.ones(1).expand(7),
        torch.nn.Parameter(torch.rand(5, 4)),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ]


def bytes_of(tensors: list[Any]) -> bytes:
    """By numpy alone."""
    found = b""
    for tensor in tensors:
        row = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).flatten()
        found += row.view(torch.uint8).numpy().tobytes()
    return found


@pytest.fixture(params=[snapshot.SLAB, 512, 24])
def slabs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Pieces that hold everything, some tensors, and less than most; each copied by another thread."""
    monkeypatch.setattr(snapshot, "SLAB", request.param)
    monkeypatch.setattr(snapshot, "_INLINE", 0)
    return int(request.param)


def test_what_is_held_is_what_was_there(slabs: int) -> None:
    tensors = odd()
    expected = bytes_of(tensors)
    pieces = hold(tensors)
    with torch.no_grad():
        for tensor in tensors:
            tensor.fill_(1)
    assert b"".join(pieces) == expected
    assert max(len(piece) for piece in pieces) <= slabs


def read_in_parts(content: LiveBytes | HeldBytes, size: int, step: int) -> bytes:
    found = bytearray(size)
    for at in range(0, size, step):
        view = content.view(at, min(step, size - at))
        if view is None:
            content.read_into(at, memoryview(found)[at : at + step])
        else:
            found[at : at + step] = view
    return bytes(found)


@pytest.mark.parametrize("step", [1, 7, 64, 10_000])
def test_what_is_read_is_what_is_there(slabs: int, step: int) -> None:
    tensors = odd()
    size = size_of(tensors)
    expected = bytes_of(tensors)
    assert read_in_parts(LiveBytes(tensors), size, step) == expected
    assert read_in_parts(HeldBytes(hold(tensors)), size, step) == expected


def test_what_was_read_of_live_tensors_stays_what_it_was() -> None:
    tensor = torch.rand(9)
    expected = bytes_of([tensor])
    found = read_in_parts(LiveBytes([tensor]), 36, 36)
    tensor.zero_()
    assert found == expected


def test_a_held_piece_is_read_without_a_copy() -> None:
    pieces = hold([torch.rand(9)])
    found = HeldBytes(pieces).view(4, 8)
    assert found is not None
    assert np.frombuffer(found, np.uint8).ctypes.data == np.frombuffer(pieces[0], np.uint8).ctypes.data + 4


def test_nothing_is_held_of_nothing() -> None:
    assert hold([]) == []
    assert hold([torch.empty(0, 3)]) == []
    nothing = memoryview(bytearray())
    LiveBytes([torch.empty(0, 3)]).read_into(0, nothing)
    HeldBytes([]).read_into(0, nothing)
    assert HeldBytes([]).view(0, 0) is None


class Watching(Copier):
    """Fails where a temporary copy is made while another one is alive, or read when it may be gone."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[Any]] = []

    def flat(self, tensor: Any) -> Any:
        assert [made for made in self.made if made() is not None] == []
        flat = super().flat(tensor)
        if flat.data_ptr() != tensor.data_ptr():
            self.made.append(weakref.ref(flat))
        return flat


def test_one_tensor_is_made_contiguous_at_a_time(slabs: int) -> None:
    tensors = [torch.rand(30, 20).t() for _ in range(5)]
    watching = Watching()
    assert b"".join(hold(tensors, watching)) == bytes_of(tensors)
    assert len(watching.made) == 5


class Lagging(Copier):
    """As a device does: what is asked for is done later, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Any, Any]] = []

    def copy(self, target: Any, source: Any, *, own: bool) -> None:
        self.asked.append((target, source))

    def __exit__(self, *error: object) -> None:
        for target, source in self.asked:
            target.copy_(source)
        super().__exit__(*error)


def test_copies_that_lag_are_complete_on_return(slabs: int) -> None:
    tensors = odd()
    expected = bytes_of(tensors)
    pieces = hold(tensors, Lagging())
    tensors[0].zero_()
    assert b"".join(pieces) == expected


def test_a_copy_that_fails_in_its_thread_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        raise MemoryError("not a page left")

    monkeypatch.setattr(snapshot, "_INLINE", 0)
    monkeypatch.setattr(snapshot.np, "copyto", broken)
    with pytest.raises(MemoryError, match="not a page left"):
        hold([torch.ones(3)])


def test_without_a_device_no_pinned_memory_is_counted() -> None:
    if not torch.cuda.is_available():
        assert snapshot.spare_pinned() == 0


# --- on a device: python -m pytest tests/hf -k cuda -----------------------------------------------------


@cuda
def test_cuda_bytes_are_held_in_pinned_memory(slabs: int) -> None:
    tensors = [tensor.cuda() for tensor in odd()] + odd()
    expected = bytes_of(tensors)
    pieces = hold(tensors)
    for tensor in tensors:
        tensor.detach().fill_(1)
    assert b"".join(pieces) == expected
    assert read_in_parts(LiveBytes(tensors), size_of(tensors), 1 << 30) == bytes_of(tensors)
    assert all(torch.frombuffer(piece, dtype=torch.uint8).is_pinned() for piece in pieces)


@cuda
def test_cuda_work_that_is_still_queued_is_in_the_snapshot_and_later_work_is_not() -> None:
    tensors = [torch.zeros(1 << 20, device="cuda") for _ in range(8)]
    torch.cuda._sleep(200_000_000)
    for tensor in tensors:
        tensor.add_(1)
    pieces = hold(tensors)
    for tensor in tensors:
        tensor.add_(1)
    assert (np.frombuffer(b"".join(pieces), np.float32) == 1).all()


@cuda
def test_cuda_memory_rises_by_one_tensor_at_most() -> None:
    tensors = [torch.rand(2048, 1024 * (n % 3 + 1), device="cuda").t() for n in range(9)]
    expected = bytes_of(tensors)
    largest = max(t.numel() * t.element_size() for t in tensors)
    for pieces in (
        lambda: b"".join(hold(tensors)),
        lambda: read_in_parts(LiveBytes(tensors), size_of(tensors), 1 << 30),
    ):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found = pieces()
        assert torch.cuda.max_memory_allocated() - before <= largest
        assert found == expected


@cuda
def test_cuda_pinned_memory_is_used_again() -> None:
    tensors = [torch.rand(1 << 22, device="cuda") for _ in range(8)]
    hold(tensors)
    size = sum(t.numel() * t.element_size() for t in tensors)
    assert snapshot.spare_pinned() >= size
    kept = torch.cuda.host_memory_stats()["allocated_bytes.current"]
    hold(tensors)
    assert torch.cuda.host_memory_stats()["allocated_bytes.current"] == kept


@cuda
def test_cuda_without_pinned_memory_the_bytes_are_held_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [tensor.cuda() for tensor in odd()]
    real = torch.empty

    def scarce(*given: Any, **named: Any) -> Any:
        if named.get("pin_memory"):
            raise RuntimeError("CUDA error: out of memory")
        return real(*given, **named)

    monkeypatch.setattr(snapshot.torch, "empty", scarce)
    assert b"".join(hold(tensors)) == bytes_of(tensors)
