"""Both implementations of the codecs' inner loops: numpy's, and the compiled one where there is one."""

from __future__ import annotations

from types import ModuleType

import pytest

from stemmata.codecs import kernels, native, numpy_kernels

FUNCTIONS = ("delta_split", "delta_groups", "delta_join", "split", "join", "narrow", "same")

needs_native = pytest.mark.skipif(
    native.library is None,
    reason=f"no compiled codecs: {native.FILE.name} is absent, or not for this machine",
)
CHOICES = [
    pytest.param(numpy_kernels, id="numpy"),
    pytest.param(native, id="native", marks=needs_native),
]


def use(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the codecs of this process run on `module`."""
    for name in FUNCTIONS:
        monkeypatch.setattr(kernels, name, getattr(module, name))
