"""What the codecs may run on: loops in numpy, compiled loops, and with those, whole payloads in one call."""

from __future__ import annotations

from types import ModuleType

import pytest

from stemmata.codecs import kernels, native, native_kernels, numpy_kernels, payloads

FUNCTIONS = ("delta_split", "delta_groups", "delta_join", "split", "join", "narrow", "same")

needs_native = pytest.mark.skipif(
    native.library is None,
    reason=f"no compiled codecs: {native.FILE.name} is absent, or not for this machine",
)
CHOICES = [
    pytest.param(numpy_kernels, id="numpy"),
    pytest.param(native_kernels, id="native", marks=needs_native),
]
WAYS = [
    *CHOICES,
    pytest.param(
        payloads, id="payloads", marks=pytest.mark.skipif(bool(payloads.why_not), reason=payloads.why_not)
    ),
]


def use(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the codecs of this process run on `module`."""
    if module is payloads:
        return  # they are tried before anything else
    monkeypatch.setattr(payloads, "_own", None)
    for name in FUNCTIONS:
        monkeypatch.setattr(kernels, name, getattr(module, name))
