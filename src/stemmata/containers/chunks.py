"""Chunks: cutting where nothing is known of the content."""

from __future__ import annotations

from stemmata.containers.base import CutPlan, Piece, PlannedSegment

CHUNK = 16 << 20
"""Bytes. Smaller than an object may be: chunks are where memory is not won by knowing better."""


def plan_chunks(size: int) -> CutPlan:
    """One segment over the whole file, in fixed chunks; no segment for an empty file."""
    return CutPlan("", byte_segments(0, size))


def byte_segments(offset: int, length: int) -> tuple[PlannedSegment, ...]:
    """A run of bytes that is no tensor: one segment, or none if it is empty."""
    if length == 0:
        return ()
    return (PlannedSegment(offset, length, pieces(offset, length, CHUNK)),)


def pieces(offset: int, length: int, step: int) -> tuple[Piece, ...]:
    """Cut a run every `step` bytes."""
    end = offset + length
    return tuple(Piece(at, min(step, end - at)) for at in range(offset, end, step))
