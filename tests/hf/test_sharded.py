"""A model that is sharded over processes is refused before the first step; a part is never committed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny_models as tiny
from stemmata.errors import TrainingSetup
from stemmata.hf import filesets

# Trainer itself falls back to DDP where there is no accelerator: the model is sharded with torch here.
SCRIPT = """
import json, os, sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {tests!r})
import torch, torch.distributed as dist
torch.set_num_threads(1)
from torch.distributed.fsdp import fully_shard
from transformers import TrainerState
import tiny_models as tiny
from stemmata.errors import TrainingSetup
from stemmata.hf import VersionCallback

where = Path({where!r})


def job(rank):
    dist.init_process_group("gloo", store=dist.FileStore(str(where / "store"), 2), rank=rank, world_size=2)
    model = tiny.gpt2()
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for block in model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    state = TrainerState(is_world_process_zero=rank == 0)
    try:
        callback = VersionCallback(where / "models", "m")
        callback.on_train_begin(SimpleNamespace(process_index=rank, world_size=2), state, None, model=model)
    except TrainingSetup as refused:
        (where / f"{{rank}}.txt").write_text(str(refused))


children = []
for rank in (0, 1):
    child = os.fork()
    if child == 0:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        code = 1
        try:
            job(rank)
            code = 0
        finally:
            os._exit(code)
    children.append(child)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""


def test_fsdp_over_two_processes_is_refused_on_every_rank_with_the_setting(tmp_path: Path) -> None:
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), where=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=110)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0], done.stderr
    for rank in (0, 1):
        text = (tmp_path / f"{rank}.txt").read_text()
        assert "sharded over processes" in text
        assert "FULL_STATE_DICT" in text
    assert not (tmp_path / "models").exists()


def test_a_tensor_of_no_elements_is_never_committed(tmp_path: Path) -> None:
    model = tiny.gpt2()
    model.transformer.wpe.weight = torch.nn.Parameter(torch.empty(0))
    with pytest.raises(TrainingSetup, match=r"wpe\.weight has no elements"):
        filesets.begin(model, None, tmp_path)
    assert list(tmp_path.iterdir()) == []
