"""A save never costs a run: what fails is logged at once, tried again, and listed at the end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import small_disks
import tiny_models as tiny
from faults import FaultyStorage
from stemmata.errors import InvalidArgument, SpaceShort, StorageFull, TrainingSaveFailed
from stemmata.hf import VersionCallback, failures, space
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.storage.local import LocalStorage

MIB = 1 << 20


class Disk:
    """A repository on a disk that can be full."""

    where = "the disk"

    def __init__(self, folder: Path) -> None:
        self.storage = FaultyStorage(LocalStorage(folder))
        self.storage.before_write = self.write
        self.full = False
        self.repo = Repository(self.storage)

    def write(self, what: str) -> None:
        if self.full:
            raise StorageFull(where=self.where)


class RealDisk:
    """The same, on a file system that is full when every byte of it is used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.where = str(folder / "models")
        self.repo = open_repository(folder / "models", create=True)

    @property
    def full(self) -> bool:
        return (self._folder / "ballast").exists()

    @full.setter
    def full(self, wanted: bool) -> None:
        if wanted:
            small_disks.fill(self._folder)
        else:
            (self._folder / "ballast").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path, repo: Repository) -> Iterator[Disk]:
    made = Disk(Path(repo.where))
    with made.repo:
        yield made


@pytest.fixture(params=["planted", "real"])
def any_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk | RealDisk]:
    if request.param == "planted":
        yield request.getfixturevalue("disk")
        return
    with small_disks.small_disk(tmp_path / "small", 16 * MIB) as folder:
        made = RealDisk(folder)
        with made.repo:
            yield made


def fill(disk: Disk | RealDisk, monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
    """The disk is full while `name` is written, the first `times` times."""
    real, left = disk.repo.save, [times]

    def save(*a: Any, **k: Any) -> Any:
        if k["name"] == name and left[0] > 0:
            left[0] -= 1
            disk.full = True
        try:
            return real(*a, **k)
        finally:
            disk.full = False

    monkeypatch.setattr(disk.repo, "save", save)


def train(disk: Disk | RealDisk, tmp_path: Path, **settings: Any) -> VersionCallback:
    callback = VersionCallback(disk.repo, "m", run_name="r", **settings)
    arguments = {"num_train_epochs": 3, "eval_strategy": "epoch"}
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], **arguments).train()
    return callback


def test_a_disk_full_in_the_background_costs_that_epoch_alone(
    any_disk: Disk | RealDisk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = any_disk
    fill(disk, monkeypatch, "r/epoch-2", 2)
    with caplog.at_level(logging.WARNING, "stemmata"):
        callback = train(disk, tmp_path)
    first, third = reversed(disk.repo.versions("m"))
    assert (first.names, third.names) == (["r/epoch-1"], ["r/epoch-3", "r/final"])
    assert third.parents == [first.id.hex]
    assert "eval_loss" in first.metrics
    assert "eval_loss" in third.metrics
    assert callback.missing == {"r/epoch-2": f"no space left in {disk.where}"}
    said = [r.getMessage() for r in caplog.records if r.name == "stemmata"]
    assert "r/epoch-2 of m failed: no space left" in said[0]
    assert "tried once more" in said[0]
    assert said[-1].splitlines()[1:] == [f"  r/epoch-2: no space left in {disk.where}"]
    assert disk.repo.check().sound
    assert list((disk.repo.session.cache_folder() / "writing").iterdir()) == []
    # With space back nothing else is missing: what comes next is saved as ever.
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [VersionCallback(disk.repo, "m", run_name="later")]).train()
    assert [v.name for v in disk.repo.versions("m")][:2] == ["later/epoch-2", "later/epoch-1"]


@pytest.mark.parametrize("name", ["r/epoch-2", "r/epoch-3"])
def test_what_failed_once_is_written_at_the_next_save_or_the_end(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sums: list[float] = []
    real = VersionCallback.on_epoch_end

    def watch(self: Any, args: Any, state: Any, control: Any, **live: Any) -> None:
        sums.append(sum(float(p.detach().sum()) for p in live["model"].parameters()))
        real(self, args, state, control, **live)

    monkeypatch.setattr(VersionCallback, "on_epoch_end", watch)
    fill(disk, monkeypatch, name, 1)
    callback = train(disk, tmp_path)
    versions = list(reversed(disk.repo.versions("m")))
    assert [v.names[0] for v in versions] == ["r/epoch-1", "r/epoch-2", "r/epoch-3"]
    assert "r/final" in versions[-1].names
    assert [v.parents for v in versions[1:]] == [[v.id.hex] for v in versions[:-1]]
    assert all("eval_loss" in v.metrics for v in versions), "also what was measured meanwhile"
    for version, expected in zip(versions, sums, strict=True):
        found = sum(float(t.sum()) for t in version.state_dict().values())
        assert found == pytest.approx(expected, rel=1e-4), "the weights of its own epoch"
    assert callback.missing == {}


def test_a_last_write_that_fails_twice_ends_the_training_normally(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(disk, monkeypatch, "r/final", 9)
    callback = train(disk, tmp_path, every="end")
    assert list(callback.missing) == ["r/final"]
    assert disk.repo.models() == []


class Die(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == 4:
            raise RuntimeError("the training's own")


def test_of_a_training_that_dies_what_is_missing_is_listed_when_the_process_ends(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(disk, monkeypatch, "r/epoch-1", 1)
    callback = VersionCallback(disk.repo, "m", run_name="r")
    with pytest.raises(RuntimeError, match="the training's own"):
        tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback, Die()]).train()
    assert callback._recorder is not None
    callback._recorder.wait()
    assert callback.missing == {}, "to be tried again at a next save, which never comes"
    failures._tell()  # as the interpreter does
    assert callback.missing == {"r/epoch-1": "no space left in the disk"}
    assert "did not come to its end; not written:\n  r/epoch-1: no space left" in caplog.text
    assert list((disk.repo.session.cache_folder() / "writing").iterdir()) == []


def test_what_failed_once_is_tried_again_upon_a_signal(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(disk, monkeypatch, "r/epoch-1", 1)

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
            if state.global_step == 3 and callback._recorder is not None:
                callback._recorder.wait()
                assert disk.repo.models() == []
                os.kill(os.getpid(), signal.SIGTERM)
                assert done.wait(30)
                assert disk.repo["m@r/epoch-1"].step == 2

    done = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: done.set())
    try:
        callback = VersionCallback(disk.repo, "m", run_name="r")
        trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback, Stop()])
        trainer.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.is_set()
    assert callback.missing == {}


def test_a_model_that_cannot_be_snapshotted_does_not_stop_the_training(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*a: Any, **k: Any) -> Any:
        raise RuntimeError("out of memory")

    from stemmata.hf import weightfiles

    monkeypatch.setattr(weightfiles, "hold", broken)
    callback = train(disk, tmp_path)
    assert callback.missing["r/epoch-1"] == "RuntimeError: out of memory"
    assert list((disk.repo.session.cache_folder() / "writing").iterdir()) == []


def test_space_is_looked_at_before_the_first_step_and_each_save(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(space.os, "statvfs", lambda place: SimpleNamespace(f_bavail=1, f_frsize=4096))
    with caplog.at_level(logging.WARNING, "stemmata"):
        callback = train(disk, tmp_path)
    assert "has 4.0 KiB free, and a version of m needs" in caplog.records[0].getMessage()
    assert set(callback.missing) == {"r/epoch-1", "r/epoch-2", "r/epoch-3", "r/final"}
    with pytest.raises(SpaceShort, match=r"has 4.0 KiB free"):
        train(disk, tmp_path, on_error="raise")


def test_space_that_runs_out_later_raises_where_that_was_asked_for(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([1 << 40, 1 << 40])
    real = os.statvfs("/")

    def statvfs(place: Any) -> Any:
        left = next(free, 0)
        return SimpleNamespace(f_bavail=left // real.f_frsize, f_frsize=real.f_frsize)

    monkeypatch.setattr(space.os, "statvfs", statvfs)
    with pytest.raises(TrainingSaveFailed, match=r"r/epoch-2 of m failed: .* has 0 B free"):
        train(disk, tmp_path, on_error="raise")


def test_a_wrong_on_error_is_refused_at_once(repo: Repository) -> None:
    with pytest.raises(InvalidArgument):
        VersionCallback(repo, "m", on_error="ignore")  # type: ignore[arg-type]


def test_a_snapshot_is_let_go_of_when_it_is_written(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import weakref

    from stemmata.hf import recorder, weightfiles

    kept: list[weakref.ref[memoryview]] = []
    real = weightfiles.hold

    def hold(tensors: Any) -> Any:
        made = real(tensors)
        kept.extend(weakref.ref(piece) for piece in made)
        return made

    monkeypatch.setattr(weightfiles, "hold", hold)
    line = recorder.Recorder(repo, "m", "r", recorder.Account())
    model = torch.nn.Linear(4, 4)
    gc.disable()
    try:
        line.save(model, None, name="one", step=1, epoch=None, event="step", metrics={})
        line.drain()
        assert kept
        assert not [r for r in kept if r() is not None]
    finally:
        gc.enable()
        line.finish(model, None)


# --- what is free -------------------------------------------------------------------------------------


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert space.free_bytes(tmp_path / "a" / "b") == pytest.approx(space.free_bytes(tmp_path), rel=0.5)


def _system(folder: Path, groups: str, **files: str) -> tuple[Path, Path]:
    proc, cgroup = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 64000 kB\nMemAvailable:   32768 kB\n")
    (proc / "self/cgroup").write_text(groups)
    for name, text in files.items():
        path = cgroup / name.replace("__", "/").replace("_of_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, cgroup


def test_memory_is_what_the_narrowest_group_leaves(tmp_path: Path) -> None:
    groups = "0::/job/step\n"
    for level, most in (("job", str(20 * MIB)), ("job/step", "max")):
        folder = tmp_path / "cgroup" / level
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(most + "\n")
        (folder / "memory.current").write_text(f"{15 * MIB}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {2 * MIB}\n")
    proc, cgroup = _system(tmp_path, groups)
    assert space.free_memory(proc, cgroup) == 7 * MIB


def test_memory_in_a_group_of_version_1(tmp_path: Path) -> None:
    proc, cgroup = _system(tmp_path, "5:cpu:/\n4:memory:/docker/abc\n")
    folder = cgroup / "memory"  # a container sees its own group as the root
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{10 * MIB}")
    (folder / "memory.usage_in_bytes").write_text(f"{4 * MIB}")
    (folder / "memory.stat").write_text(f"total_inactive_file {MIB}\n")
    assert space.free_memory(proc, cgroup) == 7 * MIB


def test_memory_without_groups_and_without_a_kernel_that_tells(tmp_path: Path) -> None:
    proc, cgroup = _system(tmp_path, "")
    assert space.free_memory(proc, cgroup) == 32 * MIB
    assert space.free_memory(tmp_path / "no", cgroup) is None


def test_a_tokenizer_that_cannot_be_saved_costs_no_weights(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Unsavable(type(tiny.tokenizer())):  # type: ignore[misc]
        def save_pretrained(self, folder: str, *_a: Any, **_k: Any) -> None:
            Path(folder, "vocab.txt").write_text("half of it")
            raise ValueError("its vocabulary cannot be written")

    tokenizer = tiny.tokenizer()
    tokenizer.__class__ = Unsavable
    callback = VersionCallback(repo, "m", run_name="r")
    settings = {"save_strategy": "no", "num_train_epochs": 2, "processing_class": tokenizer}
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], **settings)
    trainer.train()
    assert callback.missing == {}
    for name in ("epoch-1", "final"):
        assert {file.path for file in repo[f"m@r/{name}"].files} >= {"config.json", "model.safetensors"}
        assert "vocab.txt" not in {file.path for file in repo[f"m@r/{name}"].files}
    said = [each.message for each in caplog.records if "cannot be saved" in each.message]
    assert len(said) == 1
    assert "its vocabulary cannot be written" in said[0]
    with pytest.raises(ValueError, match="its vocabulary"):
        repo.save(trainer.model, "m", tokenizer=tokenizer)  # asked for by name
