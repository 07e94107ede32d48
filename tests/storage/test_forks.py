"""Forks: whoever holds a lock may be waiting for another one, and is waited for with none in hand."""

from __future__ import annotations

import threading

import pytest

from stemmata.storage import forks


@pytest.mark.parametrize("turned", [False, True])
def test_a_fork_waits_for_no_lock_with_another_in_hand(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    outer, inner = threading.Lock(), threading.Lock()
    known = [inner, outer] if turned else [outer, inner]
    monkeypatch.setattr(forks, "_shared", known)
    monkeypatch.setattr(forks, "_PATIENCE_SECONDS", 5.0)
    held, forking = threading.Event(), threading.Event()

    def nested() -> None:
        with outer:
            held.set()
            forking.wait(5)
            with inner:
                pass

    thread = threading.Thread(target=nested)
    thread.start()
    held.wait(5)
    begin = threading.Timer(0.05, forking.set)
    begin.start()
    forks._before()
    try:
        assert sorted(map(id, forks._taken)) == sorted(map(id, known))
        assert outer.locked()
        assert inner.locked()
    finally:
        forks._after()
    thread.join()
    assert not outer.locked()
    assert not inner.locked()
