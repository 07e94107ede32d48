"""Kernels: which implementation of the inner loops runs here. See `numpy_kernels` for what they do."""

from __future__ import annotations

from stemmata.codecs import native, native_kernels, numpy_kernels, numpy_moments

_chosen = numpy_kernels if native.library is None else native_kernels

delta_split = _chosen.delta_split
delta_groups = _chosen.delta_groups
delta_join = _chosen.delta_join
split = _chosen.split
join = _chosen.join
narrow = _chosen.narrow
same = _chosen.same
moments = numpy_moments.moments if native.library is None else native_kernels.moments
