"""Memory of coding the largest fp32 object, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from users import PEAK

SOURCE = Path(__file__).parents[2] / "src"

CODE = f"""
{PEAK}
import sys
import numpy as np
from stemmata.codecs.dtypes import dtype_of
from stemmata.codecs.hashing import digest_of
from stemmata.codecs.decoding import decode_object
from stemmata.codecs.objectcode import encode_object
from stemmata.codecs.workers import frame_pool

numbers = np.empty(16 << 20, "<f4")
rng = np.random.default_rng(0)
for at in range(0, len(numbers), 1 << 20):
    numbers[at : at + (1 << 20)] = rng.standard_normal(1 << 20, dtype="f4")
digest = digest_of(numbers.view("u1").data)
encoded = encode_object(numbers.data, dtype_of("F32"), frame_pool())
stored = len(encoded)
if sys.argv[1] == "decode":
    del numbers
    decode_object(encoded, raw_length=64 << 20, digest=digest, where="x", threads=frame_pool())
print(stored, peak())
"""


@pytest.mark.parametrize("what", ["encode", "decode"])
def test_the_largest_fp32_object_is_coded_in_under_300_mib(what: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, what], env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    stored, peak = map(int, done.stdout.split())
    assert stored < 57 << 20
    assert peak < 300 << 20
