"""Writing off the training thread: bounded, in order, never skipped, never silent."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import tiny_models as tiny
from stemmata.errors import StorageFull, TrainingSaveFailed
from stemmata.hf import VersionCallback, filesets
from stemmata.hf.writer import Workspace, Writer
from stemmata.repository import Repository
from warm import WarmPython

WAIT = 30


def test_a_second_save_waits_for_the_first() -> None:
    writer = Writer()
    go, order = threading.Event(), list[str]()

    def first() -> None:
        assert go.wait(WAIT)
        order.append("first written")

    writer.save(first)
    waiting, done = threading.Event(), threading.Event()

    def train() -> None:
        waiting.set()
        writer.wait_for_room()
        order.append("second snapshot")
        writer.save(lambda: order.append("second written"))
        done.set()

    thread = threading.Thread(target=train)
    thread.start()
    assert waiting.wait(WAIT)
    assert order == []
    go.set()
    assert done.wait(WAIT)
    writer.drain()
    thread.join()
    assert order == ["first written", "second snapshot", "second written"]


def test_a_process_that_was_forked_waits_for_no_thread_of_the_first() -> None:
    """As a worker of a data loader, or a launcher's: what is written is another's affair."""
    writer, go = Writer(), threading.Event()
    writer.save(lambda: go.wait(WAIT))
    child = os.fork()
    if child == 0:
        signal.alarm(WAIT)  # rather than to stay behind
        writer.settle()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    go.set()
    writer.drain()


def test_small_jobs_keep_their_place_in_the_line() -> None:
    writer = Writer()
    order: list[int] = []
    writer.save(lambda: order.append(0))
    for number in range(1, 20):
        writer.add(lambda number=number: order.append(number))
    writer.drain()
    assert order == list(range(20))


def test_the_first_failure_is_kept_and_later_jobs_still_run() -> None:
    writer = Writer()
    ran: list[str] = []

    def fail(text: str) -> Any:
        def job() -> None:
            raise ValueError(text)

        return job

    writer.save(fail("one"))
    writer.add(fail("two"))
    writer.add(lambda: ran.append("three"))
    writer.drain()
    assert ran == ["three"]
    assert str(writer.take_failure()) == "one"
    assert writer.take_failure() is None


def test_the_snapshot_is_taken_before_training_goes_on_and_written_after(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write is held back until two more optimizer steps have been made."""
    from transformers import TrainerCallback

    real, moved_on, threads = repo.save, threading.Event(), set()

    def late(*a: Any, **k: Any) -> Any:
        threads.add(threading.current_thread())
        if k["name"] == "r/epoch-1":
            assert moved_on.wait(WAIT)
        return real(*a, **k)

    monkeypatch.setattr(repo, "save", late)
    expected: dict[str, Any] = {}

    class Watch(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
            if state.global_step == 2:
                live["model"].save_pretrained(tmp_path / "expected")

        def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
            if state.global_step == 4:
                moved_on.set()

    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [Watch(), VersionCallback(repo, "m", run_name="r")])
    trainer.train()
    repo["m@r/epoch-1"].checkout(tmp_path / "ours")
    expected = tiny.files_of(tmp_path / "expected")
    ours = tiny.files_of(tmp_path / "ours")
    assert expected["model.safetensors"] == ours["model.safetensors"]
    assert threading.main_thread() not in threads


def test_a_failed_write_stops_nothing_before_it_and_is_raised_at_the_next_save(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = repo.save

    def full(*a: Any, **k: Any) -> Any:
        if k["name"] == "r/epoch-2":
            raise StorageFull(where="the disk")
        return real(*a, **k)

    monkeypatch.setattr(repo, "save", full)
    callback = VersionCallback(repo, "m", run_name="r", on_error="raise")
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=3)
    with pytest.raises(TrainingSaveFailed, match=r"r/epoch-2 of m failed: no space left in the disk"):
        trainer.train()
    assert "r/epoch-2 of m failed" in caplog.text, "said at once: a training that dies hears no more"
    assert [v.name for v in repo.versions("m")] == ["r/epoch-1"]
    assert list((repo.session.cache_folder() / "writing").iterdir()) == []


def test_a_failure_of_the_last_write_is_raised_when_the_training_ends(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*a: Any, **k: Any) -> Any:
        raise OSError("the cable was cut")

    monkeypatch.setattr(repo, "save", broken)
    callback = VersionCallback(repo, "m", every="end", on_error="raise")
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback])
    with pytest.raises(TrainingSaveFailed, match="OSError: the cable was cut"):
        trainer.train()


def test_a_disk_that_is_full_when_the_snapshot_is_taken_is_named_too(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, *a: Any, **k: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
    callback = VersionCallback(repo, "m", run_name="r", on_error="raise")
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback])
    with pytest.raises(TrainingSaveFailed, match=r"r/epoch-1 of m failed: OSError.*No space left"):
        trainer.train()
    assert list((repo.session.cache_folder() / "writing").iterdir()) == []


def test_no_progress_bar_of_a_save_tears_that_of_the_training(repo: Repository, tmp_path: Path) -> None:
    from transformers.utils import logging

    seen: list[str] = []

    def watch(factory: Any, arguments: Any, named: Any) -> Any:
        seen.append(threading.current_thread().name)
        return logging.EmptyTqdm(*arguments, **named)

    filesets._hush.cache_clear()
    before = logging.set_tqdm_hook(watch)
    try:
        trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [VersionCallback(repo, "m")])
        trainer.train()
        assert seen == []
        trainer.save_model(str(tmp_path / "theirs"))
        assert seen == [threading.current_thread().name], "the Trainer's own are as they were"
    finally:
        logging.set_tqdm_hook(before)
        filesets._hush.cache_clear()


def test_a_write_under_way_is_finished_when_the_training_dies_of_an_error(
    tmp_path: Path, warm: WarmPython
) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import tiny_models as tiny
from transformers import TrainerCallback
from stemmata.hf import VersionCallback

class Die(TrainerCallback):
    def on_epoch_end(self, args, state, control, **live):
        raise RuntimeError("out of luck")

callback = VersionCallback({str(tmp_path / "models")!r}, "m", run_name="r")
tiny.trainer(tiny.gpt2(), {str(tmp_path / "out")!r}, [callback, Die()]).train()
"""
    done = warm.run(script)
    assert done.returncode == 1
    assert "out of luck" in done.stderr
    from stemmata.repository import open as open_repository

    with open_repository(tmp_path / "models") as opened:
        assert [v.name for v in opened.versions("m")] == ["r/epoch-1"]
        assert opened.check().sound


# --- the workspace ----------------------------------------------------------------------------------


def test_folders_of_killed_processes_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = os.uname().nodename
    dead = tmp_path / f"saving-{host}-{gone.pid}-x"
    alive = tmp_path / f"saving-{host}-{os.getppid()}-x"
    elsewhere = tmp_path / f"saving-another.host-{gone.pid}-x"
    for folder in (dead, alive, elsewhere):
        folder.mkdir()
    made = Workspace(tmp_path).folder()
    assert made.is_dir()
    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()
    Workspace.remove(made)
    Workspace.remove(made)
    assert not made.exists()


def test_a_folder_lives_as_long_as_the_process_that_holds_it_whatever_its_number_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in containers: one name for all of them, and numbers that mean something in each alone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "getpid", lambda: gone.pid)
        os.write(theirs, str(Workspace(tmp_path).folder()).encode())
        signal.pause()
    try:
        held = Path(os.read(ours, 4096).decode())
        (held / "config.json").write_text("{}")
        Workspace(tmp_path)
        assert (held / "config.json").exists()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ours)
        os.close(theirs)
    Workspace(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_host_whose_name_begins_alike_keeps_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node-4194399")
    made = Workspace(tmp_path).folder()
    old = tmp_path / "saving-node-4194399-4194400-x"
    old.mkdir()
    for host in ("node", "node-4194399-4194400"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        Workspace(tmp_path)
    assert made.is_dir()
    assert old.is_dir()
    Workspace.remove(made)


def test_where_nothing_can_be_locked_a_folder_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks")

    def other(name: str) -> Path:
        return tmp_path / name.replace(str(os.getpid()), "4194400")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        made = Workspace(tmp_path).folder()
    for left in list(tmp_path.iterdir()):  # as another process's that is gone
        left.rename(other(left.name))
    Workspace(tmp_path)
    assert other(made.name).is_dir()
