"""What was snapshotted is finished, whatever ends the training; the exit status stays whose it was."""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback, TrainerState

import tiny_models as tiny
from stemmata.hf import VersionCallback, interruption
from stemmata.hf.interruption import Patience
from stemmata.hf.recorder import Account, Recorder
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from warm import WarmPython

BEGIN = """
import json, os, signal, sys, threading
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import tiny_models as tiny
from transformers import TrainerCallback, TrainerState
from stemmata.hf import VersionCallback
from stemmata.hf.runs import TrainingRun
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
"""

SCRIPT = (
    BEGIN
    + """
saving, go = threading.Event(), threading.Event()
real = Repository.save


def save(self, *a, **k):
    saving.set()
    assert go.wait(60)
    return real(self, *a, **k)


class Terminate(TrainerCallback):
    def __init__(self):
        self.then = threading.Event()

    def on_step_end(self, args, state, control, **live):
        if state.global_step == 3:
            assert saving.wait(60)
            os.kill(os.getpid(), signal.SIGTERM)
            go.set()  # only now the write of epoch 1 can go on
            self.then.wait(60)


def job(kind, folder):
    Repository.save = save
    if kind == "handler":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    terminate = Terminate()
    trainer = tiny.trainer(
        tiny.gpt2(), folder / "out", [VersionCallback(folder / "models", "m", resume=True), terminate],
        run_name="r", num_train_epochs=3, enable_jit_checkpoint=kind == "jit",
        save_strategy="steps", save_steps=100 if kind == "jit" else 2,
    )
    if kind == "jit":
        jit = next(c for c in trainer.callback_handler.callbacks if hasattr(c, "jit_manager")).jit_manager
        jit.kill_wait, enable = 0, jit._enable_checkpoint
        jit._enable_checkpoint = lambda: (enable(), terminate.then.set())
    trainer.train()


where = Path({where!r})
codes = {{}}
for kind in ("default", "handler", "jit"):
    child = os.fork()
    if child == 0:
        job(kind, where / kind)
        sys.exit(0)
    codes[kind] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(codes))
"""
)


ENDS = (
    BEGIN
    + """
ending, go = threading.Event(), threading.Event()
save = Repository.save


def late(self, *a, **k):
    if k["step"] == 4:
        assert go.wait(60)
    return save(self, *a, **k)


def telling(call):
    def tell(self, *a, **k):
        ending.set()
        return call(self, *a, **k)
    return tell


def terminate():
    assert ending.wait(60)
    os.kill(os.getpid(), signal.SIGTERM)
    go.set()


def job(kind, folder):
    Repository.save = late
    VersionCallback._save_last = telling(VersionCallback._save_last)
    TrainingRun.close = telling(TrainingRun.close)
    threading.Thread(target=terminate, daemon=True).start()
    if kind == "trainer":
        callback = VersionCallback(folder / "models", "m")
        trainer = tiny.trainer(tiny.gpt2(), folder / "out", [callback], run_name="r", num_train_epochs=2)
        trainer.train()
    else:
        run = open_repository(folder / "models", create=True).run("m", "r")
        run.save(tiny.gpt2(), step=4, epoch=2)
        if kind == "loop":
            ending.set()
            threading.Event().wait(60)
        run.close()


where = Path({where!r})
codes = {{}}
for kind in ("trainer", "run", "loop"):
    child = os.fork()
    if child == 0:
        job(kind, where / kind)
        threading.Event().wait(60)  # who waited passes the signal on
        os._exit(0)
    codes[kind] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(codes))
"""
)


def test_sigterm_while_the_last_version_is_waited_for_loses_nothing(tmp_path: Path, warm: WarmPython) -> None:
    done = warm.run(ENDS.format(tests=str(Path(__file__).parents[1]), where=str(tmp_path)))
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes == dict.fromkeys(("trainer", "run", "loop"), -signal.SIGTERM), done.stderr
    for kind in codes:
        with open_repository(tmp_path / kind / "models") as repo:
            assert repo["m@r/epoch-2"].step == 4, kind


def test_sigterm_finishes_the_write_and_keeps_the_exit_status(tmp_path: Path, warm: WarmPython) -> None:
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), where=str(tmp_path))
    done = warm.run(script)
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes == {"default": -signal.SIGTERM, "handler": 7, "jit": 0}, done.stderr
    for kind in codes:
        with open_repository(tmp_path / kind / "models") as repo:
            assert repo["m@r/epoch-1"].step == 2
            assert repo.resume("m", run="r") is not None
            if kind == "jit":
                # The Trainer's own answer to the signal: a checkpoint without an event, then the end.
                assert [v.name for v in repo.versions("m.resume")] == ["r/step-3"]
                assert repo["m@r/final"].step == 4


class Stop(TrainerCallback):
    def __init__(self, error: type[BaseException], go: threading.Event) -> None:
        self.error = error
        self.go = go

    def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == 3:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_cell_loses_nothing_and_the_next_one_trains(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    go, real = threading.Event(), repo.save

    def save(*a: Any, **k: Any) -> Any:
        assert go.wait(60)
        return real(*a, **k)

    monkeypatch.setattr(repo, "save", save)
    before = signal.getsignal(signal.SIGTERM)
    callback = VersionCallback(repo, "m", run_name="r")
    with pytest.raises(error):
        tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback, Stop(error, go)]).train()
    go.set()
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback]).train()
    assert [v.name for v in reversed(repo.versions("m"))] == ["r/epoch-1", "r-2/epoch-1", "r-2/epoch-2"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_handlers_of_trainings_that_died_are_not_left_behind() -> None:
    """A cell that makes its callback anew at each run: nothing ends the handler of the one before."""
    before = signal.getsignal(signal.SIGTERM)
    ours = [TrainerState() for _ in range(3)]
    busy = [False]
    dead = Patience(lambda: busy[0], lambda: None, ours[0])
    two = [Patience(lambda: False, lambda: None, ours[1]) for _ in range(2)]
    try:
        dead.begin()
        busy[0] = True
        interruption.take_left_away(ours[1])
        assert signal.getsignal(signal.SIGTERM) == dead._handle, "still writing: it is waited for"
        busy[0] = False
        for patience in two:
            patience.begin()
        assert signal.getsignal(signal.SIGTERM) == two[1]._handle
        assert (two[1]._before, two[0]._before) == (two[0]._handle, before), "two of one training stay"
        interruption.take_left_away(ours[2])
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_runs_side_by_side_and_within_a_training_each_keep_the_signal(
    repo: Repository, tmp_path: Path
) -> None:
    first = signal.getsignal(signal.SIGTERM)
    waited: list[str] = []

    def handler() -> Any:
        return signal.getsignal(signal.SIGTERM)

    class Probe(TrainerCallback):
        def on_step_end(self, _args: Any, state: Any, _control: Any, **_live: Any) -> None:
            if state.global_step == 1:
                before = handler()
                with repo.run("probe") as run:
                    assert handler() != before
                    run.save(tiny.gpt2(), step=1)
                assert handler() == before != first
                waited.append("probe")

    tiny.trainer(tiny.gpt2(), tmp_path / "out", [VersionCallback(repo, "m"), Probe()]).train()
    assert waited == ["probe"]
    assert handler() == first
    one, two = repo.run("one"), repo.run("two")
    of_two = handler()
    one.close()
    assert handler() == of_two != first
    two.close()
    assert handler() == first
    one, two = repo.run("one"), repo.run("two")
    two.close()
    assert handler() != first
    one.close()
    assert handler() == first
    for _ in range(3):
        repo.run("left")  # never closed, and gone
    gc.collect()
    last = repo.run("last")
    last.close()
    assert handler() == first


def test_a_process_that_was_forked_during_a_write_can_be_terminated() -> None:
    """As a pool terminates its workers: they have the handler, and no writer to wait for."""
    forever = threading.Event()
    training = TrainerState()
    patience = Patience(lambda: True, lambda: forever.wait() and None, training)
    patience.begin()
    try:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(9)
    finally:
        patience.end()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


@pytest.mark.parametrize("fails", ["waiting", "starting"])
def test_a_signal_that_cannot_be_waited_for_is_passed_on_all_the_same(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """As while the interpreter ends: it takes no new work and starts no thread."""
    passed_on = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: passed_on.set())

    def wait() -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "excepthook", lambda _told: None)
    training = TrainerState()
    patience = Patience(lambda: True, wait, training)
    try:
        patience.begin()
        with monkeypatch.context() as patched:
            if fails == "starting":
                patched.setattr(threading.Thread, "start", start)
            os.kill(os.getpid(), signal.SIGTERM)
            assert passed_on.wait(30)
        passed_on.clear()
        os.kill(os.getpid(), signal.SIGTERM)
        assert passed_on.wait(30), "nor is a later one lost"
    finally:
        for thread in threading.enumerate():
            if thread.name == "stemmata-sigterm":
                thread.join()
        patience.end()
        signal.signal(signal.SIGTERM, before)


def test_what_cannot_be_tried_again_stays_listed(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(repo, "m", "r", Account())

    def broken(*_a: Any, **_k: Any) -> Any:
        raise OSError("the cable was cut")

    monkeypatch.setattr(repo, "save", broken)
    saved = {"step": 1, "epoch": 1.0, "event": "epoch", "metrics": {}}
    recorder.save(tiny.gpt2(), None, name="epoch-1", **saved)
    recorder.wait()
    recorder._writer._pool.shutdown()  # as when the interpreter ends
    recorder.settle()
    recorder.failures.leave()
    assert list(recorder.failures.missing) == ["r/epoch-1"]
