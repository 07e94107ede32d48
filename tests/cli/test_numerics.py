"""Threads for linear algebra, which commands that only move bytes do without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stemmata.cli.numerics import without_blas

TOLD = """
import ctypes, os, sys
from stemmata.cli.main import run
run(sys.argv[1:])
found = ctypes.CDLL(None).getenv
found.restype = ctypes.c_char_p
print(found(b"OPENBLAS_NUM_THREADS"), os.environ.get("OPENBLAS_NUM_THREADS"))
"""


@pytest.mark.skipif(os.name == "nt", reason="its environment is not that of the C library")
@pytest.mark.parametrize(("chosen", "told"), [(None, "b'1' None"), ("3", "b'3' 3")])
def test_only_the_library_is_told_and_who_chose_keeps_it(shop: Path, chosen: str | None, told: str) -> None:
    others = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    environment = others if chosen is None else {**others, "OPENBLAS_NUM_THREADS": chosen}
    command = [sys.executable, "-c", TOLD, "save", "out", "sentiment"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.splitlines()[-1] == told


def test_what_is_recorded_of_the_environment_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = dict(os.environ)
    without_blas()
    os.unsetenv("OPENBLAS_NUM_THREADS")
    assert dict(os.environ) == before
