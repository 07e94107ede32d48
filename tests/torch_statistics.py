"""What torch computes of tensors, in float64: held against what stemmata kept of them, to 1e-6 relative."""

from __future__ import annotations

import math

import pytest
import torch

from stemmata.compare.statistics import Movement, TensorStatistics


def same(found: float, wanted: float) -> None:
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-12, nan_ok=True)


def require(row: TensorStatistics, tensor: torch.Tensor) -> None:
    """The row is of this tensor, all of whose elements are finite."""
    x = tensor.double()
    assert row.nonfinite == 0
    assert row.zeros == int((x == 0).sum())
    same(row.l2, float(x.norm()))
    if not x.numel():
        assert math.isnan(row.mean)
        assert math.isnan(row.max)
        return
    same(row.mean, float(x.mean()))
    same(row.std, float(x.std()) if x.numel() > 1 else math.nan)
    same(row.min, float(x.min()))
    same(row.max, float(x.max()))


def require_way(moved: Movement | None, before: torch.Tensor, after: torch.Tensor) -> None:
    """The movement is the one from `before` to `after`."""
    assert moved is not None
    a, b = before.double().flatten(), after.double().flatten()
    same(moved.change, float((b - a).norm()))
    same(moved.before, float(a.norm()))
    same(moved.after, float(b.norm()))
    same(moved.relative, float((b - a).norm() / a.norm()) if moved.change else 0.0)
    same(moved.largest, float((b - a).abs().max()))
    same(moved.cosine, float(torch.dot(a, b) / (a.norm() * b.norm())))
    assert moved.unchanged == int((a == b).sum())
