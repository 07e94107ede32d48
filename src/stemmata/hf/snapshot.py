"""Snapshot: the bytes of tensors, one after another as a file holds them.

`hold` copies them into host memory of its own, so that the live tensors may change when it returns;
`LiveBytes` reads them from where they are, for whoever lets nothing change meanwhile. Either makes at
most one temporary copy of a tensor at a time, on whatever device that is.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from stemmata.codecs.pages import fresh_array
from stemmata.codecs.workers import Threads

SLAB = 64 << 20
"""Bytes of memory asked for at a time: a power of two, as the allocator of pinned memory rounds up to one."""
_THREADS = min(4, os.cpu_count() or 1)
_INLINE = 1 << 20
"""Bytes below which handing a copy to another thread takes longer than the copy."""


def hold(tensors: Sequence[Any], copier: Copier | None = None) -> list[memoryview]:
    """The tensors' bytes in host memory, complete on return; pieces, in order.

    Bytes from CUDA go into pinned memory where that can be had. `copier`: by default as the devices ask.
    """
    left = size_of(tensors)
    slabs: list[Any] = []
    at = room = 0
    with torch.no_grad(), copier or _copier_for(tensors) as chosen:
        for tensor in tensors:
            flat = chosen.flat(tensor)
            done = 0
            while done < flat.numel():
                if at == room:
                    room = min(SLAB, left)
                    slabs.append(chosen.slab(room))
                    left, at = left - room, 0
                count = min(flat.numel() - done, room - at)
                own = flat.data_ptr() == tensor.data_ptr()
                chosen.copy(slabs[-1][at : at + count], flat[done : done + count], own=own)
                done, at = done + count, at + count
            del flat  # before the next is made: it may be a copy
    return [memoryview(slab.numpy()) for slab in slabs]


class HeldBytes:
    """Pieces of memory that nobody changes, read as one row."""

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self._pieces = pieces
        self._starts = [0, *accumulate(len(piece) for piece in pieces)]

    def view(self, offset: int, length: int) -> memoryview | None:
        """These bytes, where they lie in one piece."""
        first = bisect_right(self._starts, offset) - 1
        at = offset - self._starts[first]
        whole = first < len(self._pieces) and at + length <= len(self._pieces[first])
        return self._pieces[first][at : at + length] if whole else None

    def read_into(self, offset: int, into: memoryview) -> None:
        """Copy bytes from `offset` on."""
        done = 0
        for place in range(bisect_right(self._starts, offset) - 1, len(self._pieces)):
            part = self._pieces[place][offset + done - self._starts[place] :][: len(into) - done]
            np.copyto(np.frombuffer(into[done : done + len(part)], np.uint8), np.frombuffer(part, np.uint8))
            done += len(part)
            if done == len(into):
                break


class LiveBytes:
    """The tensors' bytes read as one row. Of one thread at a time."""

    def __init__(self, tensors: Sequence[Any]) -> None:
        self.tensors = tensors
        self._starts = [0, *accumulate(size_of([tensor]) for tensor in tensors)]
        self._flat: tuple[int, Any] = (-1, None)
        self._settled = False

    @property
    def size(self) -> int:
        return self._starts[-1]

    def view(self, offset: int, length: int) -> None:
        """None: they may change."""

    def read_into(self, offset: int, into: memoryview) -> None:
        """Copy bytes from `offset` on, as they are now."""
        self._settle()
        target = torch.frombuffer(into, dtype=torch.uint8) if len(into) else torch.empty(0)
        done = 0
        with torch.no_grad():
            # An empty tensor has the start of the one after it.
            for place in range(bisect_right(self._starts, offset) - 1, len(self.tensors)):
                if done == len(into):
                    break
                flat = self._bytes_of(place)
                begin = offset + done - self._starts[place]
                part = flat[begin : begin + len(into) - done]
                if part.device.type == "cpu":
                    # Not torch's copy: see `Copier`.
                    np.copyto(target[done : done + part.numel()].numpy(), part.numpy())
                else:
                    target[done : done + part.numel()].copy_(part)
                done += part.numel()

    def _bytes_of(self, place: int) -> Any:
        """Of one tensor in one row; kept until another is asked for, since it may be a copy."""
        if self._flat[0] != place:
            self._flat = (-1, None)  # before the next is made
            self._flat = (place, _flat(self.tensors[place]))
        return self._flat[1]

    def _settle(self) -> None:
        """Wait for what the training has asked of a device: another thread reads in a stream of its own."""
        if not self._settled:
            for device in {tensor.device for tensor in self.tensors if tensor.device.type == "cuda"}:
                torch.cuda.synchronize(device)
            self._settled = True


def size_of(tensors: Sequence[Any]) -> int:
    """Bytes that the tensors take in a file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def spare_pinned() -> int:
    """Bytes of pinned memory that torch keeps of earlier snapshots and uses again; 0 if it does not tell."""
    stats = torch.cuda.host_memory_stats() if hasattr(torch.cuda, "host_memory_stats") else {}
    return int(stats.get("allocated_bytes.current", 0)) - int(stats.get("active_bytes.current", 0))


def _flat(tensor: Any) -> Any:
    """A tensor's bytes in one row, on its device: its own where they lie so, else a copy."""
    # torch may leave a conjugate or a minus sign to whoever reads; the bytes are to have it.
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.contiguous().reshape(-1).view(torch.uint8)


def _copier_for(tensors: Sequence[Any]) -> Copier:
    return CudaCopier() if any(t.device.type == "cuda" for t in tensors) else Copier()


class Copier:
    """Copies into ordinary memory. A context: what was asked for is done when it is left.

    Copies are shared between a few threads, each of which copies a piece by itself. torch's own copy would
    have all of its threads wait for each other at each piece: several times slower where other processes
    keep the cores busy.
    """

    def __init__(self) -> None:
        self._pool = Threads(_THREADS, thread_name_prefix="stemmata-copy")
        self._copies: list[Future[None]] = []

    def slab(self, size: int) -> Any:
        """Memory for `size` bytes."""
        # Touching new memory is most of what a copy takes.
        return torch.from_numpy(fresh_array(size))

    def flat(self, tensor: Any) -> Any:
        """A tensor's bytes in one row, on its device."""
        return _flat(tensor)

    def copy(self, target: Any, source: Any, *, own: bool) -> None:
        """Copy bytes, now or later; those that are not a tensor's `own` are gone when this returns."""
        if source.device.type != "cpu":
            target.copy_(source)
        elif own and source.numel() >= _INLINE:
            self._copies.append(self._pool.submit(np.copyto, target.numpy(), source.numpy()))
        else:
            np.copyto(target.numpy(), source.numpy())

    def __enter__(self) -> Copier:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for copy in self._copies:
            copy.result()


class CudaCopier(Copier):
    """Copies from CUDA into pinned memory, in a stream of its own on each device."""

    def __init__(self) -> None:
        super().__init__()
        self._streams: dict[Any, Any] = {}

    def slab(self, size: int) -> Any:
        try:
            return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
        except RuntimeError:
            # Pinned memory is scarce on some machines; a plain copy is slower, no worse.
            return super().slab(size)

    def flat(self, tensor: Any) -> Any:
        if tensor.device.type != "cuda":
            return super().flat(tensor)
        # A copy made in the stream that reads it: freed, its memory is not used again before that is done.
        with torch.cuda.stream(self._stream(tensor.device)):
            return super().flat(tensor)

    def copy(self, target: Any, source: Any, *, own: bool) -> None:
        if source.device.type != "cuda":
            super().copy(target, source, own=own)
            return
        with torch.cuda.stream(self._stream(source.device)):
            target.copy_(source, non_blocking=True)

    def _stream(self, device: Any) -> Any:
        if device not in self._streams:
            stream = torch.cuda.Stream(device)
            # After what the training has asked for so far: its last step among that.
            stream.wait_stream(torch.cuda.current_stream(device))
            self._streams[device] = stream
        return self._streams[device]

    def __exit__(self, *error: object) -> None:
        for stream in self._streams.values():
            stream.synchronize()
        super().__exit__(*error)
