"""Peak memory of a child process does not grow with the file (512 MiB at most).

The short form runs everywhere; `STEMMATA_TEST_LARGE=1` (as in scripts/test-slow) saves a 4 GB
file and a single 2 GB tensor.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stemmata
from campaigns import LONG
from users import PEAK

PLAIN_BYTES = (4 << 30) if LONG else (400 << 20)
TENSOR_BYTES = (2 << 30) if LONG else (400 << 20)
LIMIT = (512 if LONG else 384) << 20
assert min(PLAIN_BYTES, TENSOR_BYTES) > LIMIT, "a smaller file would show nothing"

CHILD = f"""
{PEAK}
import sys
import stemmata
repo = stemmata.open(sys.argv[1])
if sys.argv[2] == "save":
    repo.save(sys.argv[3], "m", name=sys.argv[4], provenance={{}})
else:
    repo[f"m@{{sys.argv[4]}}"].checkout(sys.argv[3])
print(peak())
"""


def plain_file(path: Path) -> None:
    """Bytes that neither compress nor repeat at chunk boundaries."""
    block = np.random.default_rng(1).bytes(4 << 20)
    with path.open("wb") as file:
        for number in range(PLAIN_BYTES // len(block)):
            file.write(number.to_bytes(8, "little") + block[8:])


def tensor_file(path: Path) -> None:
    """A safetensors file with one float32 tensor."""
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [TENSOR_BYTES // 4], "data_offsets": [0, TENSOR_BYTES]}}
    ).encode()
    header += b" " * (-len(header) % 8)
    block = np.random.default_rng(2).normal(size=1 << 20).astype(np.float32)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for number in range(TENSOR_BYTES // block.nbytes):
            block[0] = number
            file.write(block.tobytes())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["plain", "tensor"])
def test_peak_memory_of_save_and_checkout_is_bounded(tmp_path: Path, kind: str) -> None:
    stemmata.open(tmp_path / "repo", create=True).close()
    source = tmp_path / "out"
    source.mkdir()
    file = source / ("data.bin" if kind == "plain" else "model.safetensors")
    (plain_file if kind == "plain" else tensor_file)(file)
    saved = _peak(tmp_path / "repo", "save", source, kind)
    restored = _peak(tmp_path / "repo", "checkout", tmp_path / "back", kind)
    # cmp compares without holding either file in memory.
    subprocess.run(["cmp", file, tmp_path / "back" / file.name], check=True)
    assert saved < LIMIT
    assert restored < LIMIT


def _peak(repo: Path, verb: str, folder: Path, name: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(repo), verb, str(folder), name],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)
