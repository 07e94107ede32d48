"""Where there is no memory for a copy of the weights, they are written from where they are; and said so."""

from __future__ import annotations

import functools
import json
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models as tiny
from stemmata.errors import SpaceShort, TrainingSaveFailed
from stemmata.hf import VersionCallback, filesets, recorder, space, weightfiles
from stemmata.hf.writer import Writer
from stemmata.repository import Repository
from users import PEAK
from warm import WarmPython

MIB = 1 << 20


def leave(monkeypatch: pytest.MonkeyPatch, folder: Path, free: int) -> None:
    """A group of version 2 that leaves its processes `free` bytes, on a machine with plenty."""
    proc, cgroup = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True, exist_ok=True)
    cgroup.mkdir(exist_ok=True)
    (proc / "meminfo").write_text("MemAvailable: 64000000 kB\n")
    (proc / "self/cgroup").write_text("0::/\n")
    (cgroup / "memory.max").write_text(f"{100 * MIB + free}\n")
    (cgroup / "memory.current").write_text(f"{100 * MIB}\n")
    (cgroup / "memory.stat").write_text("anon 1\ninactive_file 0\n")
    monkeypatch.setattr(space, "free_memory", functools.partial(space.free_memory, proc, cgroup))


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tensors were copied for the background, a row for each file."""
    made: list[int] = []
    real = weightfiles.hold

    def hold(tensors: Any) -> Any:
        made.append(len(tensors))
        return real(tensors)

    monkeypatch.setattr(weightfiles, "hold", hold)
    return made


@pytest.mark.parametrize(("share", "copied"), [(1.3, True), (1.1, False)])
def test_a_fifth_more_than_the_weights_must_be_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int], share: float, copied: bool
) -> None:
    model = tiny.gpt2()
    leave(monkeypatch, tmp_path / "system", int(share * filesets.weight_bytes(model)))
    files = filesets.begin(model, None, tmp_path / "ours")
    assert bool(copies) is copied
    assert files.live is not copied


def test_memory_that_cannot_be_told_is_taken_for_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]
) -> None:
    monkeypatch.setattr(space, "free_memory", lambda: None)
    filesets.begin(tiny.gpt2(), None, tmp_path)
    assert len(copies) == 1


def test_what_torch_keeps_of_earlier_copies_counts_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]
) -> None:
    model = tiny.gpt2()
    leave(monkeypatch, tmp_path / "system", 0)
    monkeypatch.setattr(filesets, "spare_pinned", lambda: 2 * filesets.weight_bytes(model))
    filesets.begin(model, None, tmp_path / "ours")
    assert len(copies) == 1


def test_a_training_goes_on_and_says_it_once(
    repo: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    copies: list[int],
) -> None:
    def train(name: str) -> None:
        callback = VersionCallback(repo, "m", run_name=name)
        tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=3).train()

    train("plenty")
    leave(monkeypatch, tmp_path / "system", 1000)
    copies.clear()
    with caplog.at_level(logging.WARNING, "stemmata"):
        train("scarce")
    assert copies == []
    for epoch in (1, 2, 3):
        scarce, plenty = (repo[f"m@{name}/epoch-{epoch}"] for name in ("scarce", "plenty"))
        assert tiny.files_of(scarce.checkout(tmp_path / f"s{epoch}")) == tiny.files_of(
            plenty.checkout(tmp_path / f"p{epoch}")
        )
    (said,) = [r.getMessage() for r in caplog.records]
    assert "versions of m are written straight from the model, and the training waits" in said
    assert "1000 B of memory are free, and a copy of the weights" in said


@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_the_disk_is_looked_at_before_anything_is_streamed(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_error: Any
) -> None:
    leave(monkeypatch, tmp_path / "system", 1000)

    asked: list[int] = []

    def short(self: Any, folder: Path, needed: int) -> None:
        asked.append(needed)
        if len(asked) > 1:  # the first is asked before the first step
            raise SpaceShort(where=str(folder), free="0 B", model="m", needed="1 B")

    monkeypatch.setattr(space.Room, "hold_on_disk", short)
    callback = VersionCallback(repo, "m", run_name="r", on_error=on_error)
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=1)
    if on_error == "raise":
        with pytest.raises(TrainingSaveFailed, match=r"r/epoch-1 of m failed: .* has 0 B free"):
            trainer.train()
    else:
        trainer.train()
        assert set(callback.missing) == {"r/epoch-1", "r/final"}
    assert repo.models() == []
    assert list((repo.session.cache_folder() / "writing").iterdir()) == []


def test_a_second_try_is_made_at_once_and_of_the_same_weights(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leave(monkeypatch, tmp_path / "system", 1000)
    real, tries = repo.save, list[str]()

    def save(*a: Any, **k: Any) -> Any:
        tries.append(k["name"])
        if tries.count("r/epoch-1") == 1 and k["name"] == "r/epoch-1":
            raise OSError("the cable was loose")
        return real(*a, **k)

    monkeypatch.setattr(repo, "save", save)
    model = tiny.gpt2()
    callback = VersionCallback(repo, "m", run_name="r")
    tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=2).train()
    assert callback.missing == {}
    assert tries[:3] == ["r/epoch-1", "r/epoch-1", "r/epoch-2"]
    assert "it is tried once more at once" in caplog.text
    last = repo["m@r/epoch-2"].state_dict()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in last.items())


def test_an_interrupted_wait_makes_no_version_of_what_changes_then(
    repo: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leave(monkeypatch, tmp_path / "system", 10)
    line = recorder.Recorder(repo, "m", "r", recorder.Account())
    go_on, real = threading.Event(), Writer.wait_for_room

    def interrupted(self: Writer) -> None:
        if self.busy():
            raise KeyboardInterrupt
        real(self)

    def slow(*a: Any, **k: Any) -> None:
        assert go_on.wait(30)

    monkeypatch.setattr(space.Room, "hold_on_disk", slow)
    monkeypatch.setattr(Writer, "wait_for_room", interrupted)
    model = torch.nn.Linear(4, 4)
    with pytest.raises(KeyboardInterrupt):
        line.save(model, None, name="one", step=1, epoch=None, event="step", metrics={})
    go_on.set()
    monkeypatch.setattr(Writer, "wait_for_room", real)
    line.finish(model, None)
    assert "no longer those that were to be saved" in line.failures.missing["r/one"]
    assert repo.models() == []


LARGE = f"""
{PEAK}
import sys, json
from pathlib import Path
import torch
import stemmata
from stemmata.hf import filesets, space

def save(name, model):
    with stemmata.open(Path(sys.argv[1], name), create=True) as repo:
        Path(sys.argv[1], name, "small").mkdir()
        files = filesets.begin(model, None, Path(sys.argv[1], name, "small"))
        version = repo.save(files.source, "m", provenance={{}})
        return peak(), version.tree().files[0].digest

save("first", torch.nn.Linear(1024, 1024))  # what is imported on the way is no part of it
rows = 25 << 16  # 50 MB of them
model = torch.nn.ParameterList([torch.full((rows, 8), float(n)) for n in range(7)])
model.append(torch.full((8, rows), 7.0).t())
before = peak()
real, space.free_memory = space.free_memory, lambda: 1
scarce = save("scarce", model)
space.free_memory = real
plenty = save("plenty", model)
print(json.dumps({{"before": before, "tensor": rows * 32, "scarce": scarce, "plenty": plenty}}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_reading_live_weights_takes_no_more_memory_than_a_few_tensors(
    tmp_path: Path, warm: WarmPython
) -> None:
    """400 MB of weights, of which the last tensor does not lie in memory as it does in a file."""
    done = warm.run(LARGE, str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # Two that are on their way, the one read ahead, and for the last a copy in order.
    tensor, before = found["tensor"], found["before"]
    assert found["scarce"][0] - before < 6.5 * tensor
    assert found["plenty"][0] - before > 8 * tensor, "the measure sees a copy"
    assert found["scarce"][1] == found["plenty"][1]
