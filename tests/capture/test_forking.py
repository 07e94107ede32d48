"""A capture beside a training whose data loaders fork."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from stemmata.capturing import background, gitting, machine
from stemmata.capturing.background import Capturing

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set while another thread is in the middle of starting a program, which takes as long as on a busy
    machine; nothing of it is remembered from before."""
    begun = threading.Event()
    closing = subprocess.Popen._close_pipe_fds  # type: ignore[attr-defined]

    def slowly(*arguments: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            time.sleep(0.5)
        closing(*arguments)

    monkeypatch.setattr(subprocess.Popen, "_close_pipe_fds", slowly)
    monkeypatch.setattr(background, "PATIENCE", 10.0)
    machine._fixed.cache_clear()
    gitting._top.cache_clear()
    return begun


def test_a_worker_that_forks_meanwhile_does_not_keep_the_capture(forking: threading.Event) -> None:
    capturing = Capturing.begin()
    assert forking.wait(20.0)
    worker = os.fork()
    if not worker:
        # As a persistent worker of a data loader: it lives as long as the training.
        signal.pause()
        os._exit(0)
    try:
        found = msgspec.json.decode(capturing.objects()["code"])
        assert "took longer" not in str(found)
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def test_a_capture_that_never_ends_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def stuck() -> dict[str, bytes]:
        end.wait(60.0)
        return {}

    capturing = Capturing({}, {"stuck": stuck})
    capturing._start()
    monkeypatch.setattr(background, "PATIENCE", 0.01)
    first = capturing.objects()
    assert b"took longer" in first["code"]
    monkeypatch.setattr(background, "PATIENCE", 3600.0)
    assert capturing.objects() == first
    end.set()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere Python's own words are taken")
def test_the_platform_is_called_as_python_calls_it_and_no_program_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = platform.platform()

    def started(*_arguments: object, **_named: object) -> None:
        raise AssertionError("a program is started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(platform, "_uname_cache", None)
    platform._platform_cache.clear()  # type: ignore[attr-defined]
    machine._fixed.cache_clear()
    found, _ = machine.collect()
    assert found["platform"] == expected
    assert found["cpu"]
