"""A training that is killed and requeued unchanged ends bit for bit as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stemmata.repository import open as open_repository
from warm import WarmPython

KINDS = ("full", "lora", "accumulation")
# The job is the same at each of its starts; only the driver below knows which one dies, and when.
SCRIPT = """
import hashlib, json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import tiny_models as tiny
from transformers import TrainerCallback
import stemmata
from stemmata.hf import VersionCallback


def job(kind, folder, killer):
    repo = stemmata.open(folder / "models", create=True)
    model = tiny.gpt2()
    if kind == "lora":
        model = tiny.with_lora(model, lora_dropout=0.2)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.2  # so that a random state that is not restored shows
    more = dict(gradient_accumulation_steps=2, rows=16) if kind == "accumulation" else {{}}
    callback = VersionCallback(repo, "m", resume=True)
    trainer = tiny.trainer(
        model, folder / "out", [callback, *killer(callback)],
        run_name="r", num_train_epochs=5, save_strategy="epoch", save_total_limit=1, **more,
    )
    trainer.train(resume_from_checkpoint=repo.resume("m", run="r"))
    found = {{n: digest(p) for n, p in trainer.model.state_dict().items()}}
    for key, moments in trainer.optimizer.state_dict()["state"].items():
        found |= {{f"optimizer.{{key}}.{{n}}": digest(t) for n, t in moments.items()}}
    (folder / "result.json").write_text(json.dumps(found))


def digest(tensor):
    return hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()


class Kill(TrainerCallback):
    def __init__(self, ours):
        self.ours = ours

    def on_step_end(self, args, state, control, **live):
        if state.global_step == 5:  # in epoch 3 of 5
            self.ours._recorder.wait()
            os.kill(os.getpid(), signal.SIGKILL)


def start(kind, folder, killer):
    child = os.fork()
    if child == 0:
        try:
            job(kind, folder, killer)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


where = Path({where!r})
codes = {{}}
for kind in {kinds!r}:
    codes[kind] = [
        start(kind, where / kind / "whole", lambda ours: []),
        start(kind, where / kind / "killed", lambda ours: [Kill(ours)]),
        start(kind, where / kind / "killed", lambda ours: []),
    ]
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def trainings(
    tmp_path_factory: pytest.TempPathFactory, warm: WarmPython
) -> tuple[Path, dict[str, list[int]]]:
    where = tmp_path_factory.mktemp("requeued")
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), where=str(where), kinds=KINDS)
    done = warm.run(script)
    assert done.returncode == 0, done.stderr
    codes: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return where, codes


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_epoch_3_and_requeued_unchanged_it_ends_bit_for_bit_the_same(
    trainings: tuple[Path, dict[str, list[int]]], kind: str
) -> None:
    where, codes = trainings
    assert codes[kind] == [0, -9, 0]
    results: list[Any] = [
        json.loads((where / kind / way / "result.json").read_text()) for way in ("whole", "killed")
    ]
    assert results[0] == results[1]
    with (
        open_repository(where / kind / "killed/models") as repo,
        open_repository(where / kind / "whole/models") as other,
    ):
        line = list(reversed(repo.versions("m")))
        assert [v.name for v in line] == [f"r/epoch-{n}" for n in range(1, 6)]
        assert len({v.run.id for v in line if v.run}) == 1
        assert [v.parents for v in line[1:]] == [[v.id.hex] for v in line[:-1]]
        assert repo["m@r/final"] == line[-1]
        assert [v.name for v in reversed(repo.versions("m.resume"))] == [
            f"r/step-{n}" for n in (2, 4, 6, 8, 10)
        ]
        for one, two in zip(line, reversed(other.versions("m")), strict=True):
            assert one.record.content == two.record.content
