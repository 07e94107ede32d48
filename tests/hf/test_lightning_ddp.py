"""Two processes train under Lightning's DDP (gloo): rank 0 writes, the other waits on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stemmata.repository import open as open_repository
from warm import WarmPython

SCRIPT = """
import json, os, socket, sys, time
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import lightning_models as models
import stemmata
from lightning.pytorch.strategies import DDPStrategy
from stemmata.hf.recorder import Recorder
from stemmata.lightning import VersionCallback

where = Path({where!r})


class Synced(models.Line):
    def training_step(self, batch, number):
        loss = self.net(batch).pow(2).mean()
        self.log("loss", loss, on_epoch=True, sync_dist=True)  # a collective when it is looked at
        return loss


def job(rank):
    if rank == 0:
        save = Recorder.save

        def slow(self, *a, **k):
            if k["name"] == "epoch-1":
                time.sleep(4.5)  # past the group's time-out: whoever waits in a collective dies of it
            return save(self, *a, **k)

        Recorder.save = slow
    callback = VersionCallback(where / "models", "m", run_name="r")
    trainer = models.trainer(
        where, callback, devices=2,
        strategy=DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=3)),
    )
    module = Synced()
    trainer.fit(module, models.numbers(16))
    (where / f"{{rank}}.json").write_text(json.dumps([callback.run_name, module.net.weight.tolist()]))


with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
children = []
for rank in (0, 1):
    child = os.fork()
    if child == 0:
        os.environ.update(
            LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo",
        )
        try:
            job(rank)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(json.dumps(codes))
"""


@pytest.mark.slow
def test_the_other_process_waits_on_the_cpu_for_what_the_first_one_writes(
    tmp_path: Path, warm: WarmPython
) -> None:
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), where=str(tmp_path))
    done = warm.run(script)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0], done.stderr[-6000:]
    first, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first[0], other[0]) == ("r", None)
    assert first[1] == other[1]
    with open_repository(tmp_path / "models") as repo:
        assert [v.names for v in reversed(repo.versions("m"))] == [["r/epoch-1"], ["r/epoch-2", "r/final"]]
        final = repo["m@r/final"]
        assert final.state_dict()["net.weight"].tolist() == first[1]
        assert final.config["trainer.world_size"] == 2
        assert final.metrics["loss_epoch"] > 0
