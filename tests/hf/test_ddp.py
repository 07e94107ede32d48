"""Two processes train (DDP over gloo): rank 0 writes, the others wait on the CPU, and what is killed
and requeued ends bit for bit the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from stemmata.repository import open as open_repository
from warm import WarmPython

BEGIN = """
import hashlib, json, os, signal, socket, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import tiny_models as tiny
from transformers import EarlyStoppingCallback, TrainerCallback
import stemmata
from stemmata.hf import VersionCallback
from stemmata.hf.recorder import Recorder

RANK = 0


def digest(tensor):
    return hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()


def start(job, *given):
    global RANK
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for RANK in (0, 1):
        child = os.fork()
        if child == 0:
            os.environ.update(
                RANK=str(RANK), LOCAL_RANK=str(RANK), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo",
            )
            try:
                job(*given)
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
"""

KILLED = """

class Naive(TrainerCallback):
    # What a callback on rank 0 sees of a checkpoint at on_save (trap 13).
    def on_save(self, args, state, control, **live):
        if state.is_world_process_zero and state.global_step == 2:
            seen = sorted(p.name for p in (Path(args.output_dir) / "checkpoint-2").glob("rng_state*"))
            (Path(args.output_dir) / "seen.json").write_text(json.dumps(seen))


class Kill(TrainerCallback):
    def __init__(self, ours):
        self.ours = ours

    def on_step_end(self, args, state, control, **live):
        if state.global_step == 5:
            if RANK == 0:
                self.ours._recorder.wait()
            os.kill(os.getpid(), signal.SIGKILL)


def job(folder, killed):
    folder.mkdir(parents=True, exist_ok=True)
    repo = stemmata.open(folder / "models", create=True)
    model = tiny.gpt2()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.2
    callback = VersionCallback(repo, "m", resume=True)
    trainer = tiny.trainer(
        model, folder / "out", [Naive(), callback, *([Kill(callback)] if killed else [])], rows=16,
        run_name="r", num_train_epochs=5, save_strategy="epoch", ddp_backend="gloo", ddp_timeout=3,
    )
    seen = folder / "out/seen.json"
    if RANK == 1:
        save_rng = trainer._save_rng_state

        def late(output):
            deadline = time.monotonic() + 2  # as a slow disk is late, well within the group's time-out
            while not seen.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            save_rng(output)

        trainer._save_rng_state = late
    elif not killed and folder.name == "whole":
        save = Recorder.save

        def slow(self, *a, **k):
            if k["name"] == "epoch-3":
                time.sleep(4.5)  # past the group's time-out: whoever waits in a collective dies of it
            return save(self, *a, **k)

        Recorder.save = slow
    trainer.train(resume_from_checkpoint=repo.resume("m", run="r"))
    if RANK == 0:
        found = {{n: digest(p) for n, p in model.state_dict().items()}}
        for key, moments in trainer.optimizer.state_dict()["state"].items():
            found |= {{f"optimizer.{{key}}.{{n}}": digest(t) for n, t in moments.items()}}
        (folder / "result.json").write_text(json.dumps(found))


where = Path({where!r})
jobs = (("whole", False), ("killed", True), ("killed", False))
codes = [start(job, where / way, killed) for way, killed in jobs]
print(json.dumps(codes))
"""


def test_two_processes_wait_on_the_cpu_and_a_killed_job_ends_the_same(
    tmp_path: Path, warm: WarmPython
) -> None:
    """Trap 13: at `on_save` rank 0 may see only its own random state; stemmata waits for every rank's."""
    script = (BEGIN + KILLED).format(tests=str(Path(__file__).parents[1]), where=str(tmp_path))
    done = warm.run(script)
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes == [[0, 0], [-9, -9], [0, 0]], done.stderr[-6000:]
    seen = json.loads((tmp_path / "whole/out/seen.json").read_text())
    assert seen == ["rng_state_0.pth"], "the naive way sees a checkpoint that is not complete"
    results = [json.loads((tmp_path / way / "result.json").read_text()) for way in ("whole", "killed")]
    assert results[0] == results[1]
    with open_repository(tmp_path / "killed/models") as repo:
        assert [v.name for v in reversed(repo.versions("m"))] == [f"r/epoch-{n}" for n in range(1, 6)]
        for state in repo.versions("m.resume"):
            names = {f.path for f in state.files}
            assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt"} <= names
        logged = repo["m@r/epoch-5"].logged()
    with open_repository(tmp_path / "whole/models") as repo:
        assert logged == repo["m@r/epoch-5"].logged() != [], "rank 0 alone keeps what was logged"


STOPPED = """

def scores(*found):
    left = list(found)
    return lambda _prediction: {{"score": left.pop(0)}}


def job(folder):
    repo = stemmata.open(folder / "models", create=True)
    callback = VersionCallback(repo, "m", every="end")
    trainer = tiny.trainer(
        tiny.gpt2(), folder / "out", [callback, EarlyStoppingCallback(1)], rows=16, run_name="r",
        num_train_epochs=5, eval_strategy="epoch", save_strategy="best", load_best_model_at_end=True,
        metric_for_best_model="score", greater_is_better=True, ddp_backend="gloo", ddp_timeout=3,
    )
    trainer.compute_metrics = scores(0.9, 0.1)
    save = Recorder.save

    def slow(self, *a, **k):
        time.sleep(4.5)  # past the group's time-out
        (folder / "saved").touch()
        return save(self, *a, **k)

    Recorder.save = slow
    log, counted = trainer.log, []

    def seen(logs, *rest):
        log(logs, *rest)
        counted.append((callback.meeting._count, (folder / "saved").exists()))

    trainer.log = seen
    trainer.train()
    found = [counted, digest(trainer.model.transformer.wte.weight)]
    (folder / f"rank-{{RANK}}.json").write_text(json.dumps(found))


print(json.dumps(start(job, Path({where!r}))))
"""


def test_two_processes_that_stop_early_meet_while_the_last_weights_are_kept(
    tmp_path: Path, warm: WarmPython
) -> None:
    """The stop comes after ours and no checkpoint follows: rank 0 saves at the Trainer's last log, and the
    others, who save nothing, wait for it there and not in a collective."""
    done = warm.run((BEGIN + STOPPED).format(tests=str(Path(__file__).parents[1]), where=str(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0], done.stderr[-6000:]
    (counted, live), other = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert [counted, live] == other, "both met as often, and neither went on before the rest was kept"
    assert counted[-1][1]
    with open_repository(tmp_path / "models") as repo:
        best, final = repo["m@r/best"], repo["m@r/final"]
        assert (best.step, final.step) == (2, 4)
        assert best.record.content != final.record.content
        kept = best.state_dict()["transformer.wte.weight"].numpy().tobytes()
    assert hashlib.sha256(kept).hexdigest() == live
