"""I5: a training that is killed in the middle of a long evaluation loses no version that was written."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from stemmata.repository import open as open_repository
from warm import WarmPython

WAIT = 90
SCRIPT = """
import os, sys, threading
sys.path.insert(0, {tests!r})
import tiny_models as tiny
from transformers import Trainer
from stemmata.hf import VersionCallback
from stemmata.repository import Repository

written = threading.Event()
real = Repository.save

def save(self, *a, **k):
    version = real(self, *a, **k)
    if k["name"] == "r/epoch-2":
        written.set()
    return version

Repository.save = save
trainer = tiny.trainer(
    tiny.gpt2(), {out!r}, [VersionCallback({repo!r}, "m", run_name="r")],
    eval_strategy="epoch", num_train_epochs=5,
)
evaluations = []

def metrics(prediction):
    evaluations.append(1)
    if len(evaluations) == 2:
        # In the middle of the second evaluation. The version of this epoch must become durable
        # although the evaluation never ends.
        assert written.wait({wait})
        os.write({signal}, b"!")
        threading.Event().wait()
    return {{"score": 0.5}}

trainer.compute_metrics = metrics
trainer.train()
"""


def test_i5_killed_in_a_long_evaluation_every_written_version_is_there(
    tmp_path: Path, warm: WarmPython
) -> None:
    reader, writer = os.pipe()
    script = SCRIPT.format(
        tests=str(Path(__file__).parents[1]),
        out=str(tmp_path / "out"),
        repo=str(tmp_path / "models"),
        wait=WAIT,
        signal=writer,
    )
    training = warm.start(script, pass_fds=[writer])
    try:
        os.close(writer)
        ready, _, _ = select.select([reader], [], [], WAIT)
        assert ready, "the second version was not written while the evaluation went on"
        assert os.read(reader, 1) == b"!"
    finally:
        os.kill(training.pid, signal.SIGKILL)
        training.wait()
        os.close(reader)
    with open_repository(tmp_path / "models") as repo:
        second, first = repo.versions("m")
        assert [first.name, second.name] == ["r/epoch-1", "r/epoch-2"]
        assert first.metrics["eval_score"] == 0.5
        assert "eval_score" not in second.metrics
        assert repo.check().sound
        assert type(second.load()).__name__ == "GPT2LMHeadModel"
