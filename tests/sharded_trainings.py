"""Sharded trainings in two processes over gloo, for tests/hf/test_sharded.py.

The Trainer, accelerate, torch and their checkpoints are the real ones. One thing is helped along: on a CPU
accelerate shards nothing and falls back to DDP, so its word for the kind of distribution is put right.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerState,
)
from transformers.distributed import DistributedConfig

import stemmata
import tiny_models as tiny
from stemmata.attach.settings import Settings
from stemmata.errors import TrainingSetup
from stemmata.hf import VersionCallback
from stemmata.hf.attached import AttachedCallback

WEIGHTS = "model.safetensors"


def shard_on_cpu() -> None:
    """Have accelerate take CPUs for devices over which it may shard."""
    begin = AcceleratorState.__init__

    def sharded(self: Any, *positional: Any, **named: Any) -> None:
        begin(self, *positional, **named)
        if self.distributed_type == DistributedType.MULTI_CPU:
            plugin = named.get("fsdp_plugin")
            kind = DistributedType.MULTI_GPU if plugin is None else DistributedType.FSDP
            if plugin is not None:
                self.fsdp_plugin = plugin
            self.distributed_type = PartialState._shared_state["distributed_type"] = kind

    AcceleratorState.__init__ = sharded


def fsdp(folder: Path, callbacks: list[Any], kind: str = "FULL_STATE_DICT", **more: Any) -> Trainer:
    model = tiny.gpt2()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.2
    layers = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_layer_cls_to_wrap": ["GPT2Block"]}
    settings = {"save_strategy": "epoch", "ddp_backend": "gloo", "run_name": "r", **more}
    config = {"version": 2, "state_dict_type": kind, **layers}
    return tiny.trainer(model, folder, callbacks, fsdp=True, fsdp_config=config, **settings)


class Gather(TrainerCallback):
    """Keeps what the model is at each save, gathered by torch alone."""

    def on_save(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        whole = get_model_state_dict(live["model"], options=options)
        if state.is_world_process_zero:
            torch.save(whole, Path(args.output_dir) / f"gathered-{state.global_step}.pt")


class Damage(TrainerCallback):
    """What a crash, a full disk or a save without a gather leaves, in the checkpoint of each epoch."""

    def on_save(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        tensors = load_file(folder / WEIGHTS)
        names = sorted(tensors)
        if state.global_step == 2:
            tensors["transformer.h.1.mlp.c_fc.weight"] = torch.empty(0)
            save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        elif state.global_step in (3, 4):
            (folder / WEIGHTS).unlink()
            shards = {
                "model-00001-of-00002.safetensors": names[::2],
                "model-00002-of-00002.safetensors": names[1::2],
            }
            for shard, inside in shards.items():
                save_file({n: tensors[n] for n in inside}, folder / shard, metadata={"format": "pt"})
            index = {"metadata": {}, "weight_map": {n: s for s, inside in shards.items() for n in inside}}
            (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
            if state.global_step == 3:
                (folder / "model-00002-of-00002.safetensors").unlink()
        elif state.global_step == 5:
            del tensors["transformer.h.0.ln_1.bias"]
            save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


class Kill(TrainerCallback):
    def __init__(self, ours: VersionCallback) -> None:
        self.ours = ours

    def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == 2:
            if state.is_world_process_zero:
                self.ours._recorder.wait()
            os.kill(os.getpid(), signal.SIGKILL)


def damaged(where: Path, rank: int) -> None:
    """What is refused before the first step; then five epochs, of which the first and fourth are whole."""
    refused = []
    for kind, more in (("SHARDED_STATE_DICT", {}), ("FULL_STATE_DICT", {"save_strategy": "no"})):
        trainer = fsdp(where / "refused", [VersionCallback(where / "none", "m")], kind, **more)
        try:
            trainer.train()
        except TrainingSetup as error:
            refused.append(str(error))
    (where / f"refused-{rank}.json").write_text(json.dumps(refused))
    callback = VersionCallback(where / "models", "m")
    fsdp(where / "out", [Gather(), Damage(), callback], num_train_epochs=5, save_total_limit=1).train()
    if rank == 0:
        (where / "missing.json").write_text(json.dumps(callback.missing))


def not_followed(where: Path, rank: int) -> None:
    """Under `stemmata run` rank 0 alone cannot save: the others wait for it at no save."""
    (where / "file").touch()
    settings = Settings(str(where / "file"), "m", "epoch", None, str(where / "report"))
    fsdp(where / "other", [AttachedCallback(settings)], num_train_epochs=1).train()


def self_sharded(where: Path, rank: int) -> None:
    """What neither the Trainer nor a load sharded: nobody would write it whole."""
    dist.init_process_group("gloo")
    model = tiny.gpt2()
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for block in model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    said = []
    try:
        state = TrainerState(is_world_process_zero=rank == 0)
        VersionCallback(where / "none", "m").on_train_begin(tiny.arguments(where), state, None, model=model)
    except TrainingSetup as error:
        said.append(str(error))
    try:
        with stemmata.open(where / f"models-{rank}", create=True).run("m", "r", on_error="raise") as run:
            run.save(model, step=1)
    except TrainingSetup as error:
        said.append(str(error))
    (where / f"refused-{rank}.json").write_text(json.dumps(said))


def resumed(where: Path, killed: bool, rank: int) -> None:
    where.mkdir(exist_ok=True)
    repo = stemmata.open(where / "models", create=True)
    callback = VersionCallback(repo, "m", resume=True)
    more = {"eval_strategy": "epoch", "load_best_model_at_end": True, "num_train_epochs": 3}
    trainer = fsdp(where / "out", [callback, *([Kill(callback)] if killed else [])], **more)
    trainer.train(resume_from_checkpoint=repo.resume("m", run="r"))


def tensor_parallel(where: Path, rank: int) -> None:
    arguments = tiny.arguments(
        where / "out",
        save_strategy="steps",
        save_steps=2,
        save_only_model=True,
        run_name="r",
        ddp_backend="gloo",
    )
    layout = DistributedConfig(tp_size=2)
    callback = VersionCallback(where / "models", "m", every=2)
    Trainer(
        model=AutoModelForCausalLM.from_pretrained(where / "base", distributed_config=layout),
        args=arguments,
        train_dataset=tiny.dataset(),
        processing_class=tiny.tokenizer(),
        callbacks=[Gather(), callback],
    ).train()


def llama(folder: Path) -> None:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "max_position_embeddings": 32,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    marks = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = LlamaConfig(vocab_size=290, tie_word_embeddings=False, **sizes, **heads, **marks)
    LlamaForCausalLM(config).save_pretrained(folder)


def digest(where: Path) -> dict[str, str]:
    found = stemmata.open(where / "models")["m@r/final"].state_dict()
    return {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in found.items()}


def start(job: Callable[[int], None]) -> list[int]:
    """Run `job` as rank 0 and 1; the exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in (0, 1):
        child = os.fork()
        if child == 0:
            here = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
            os.environ.update(here, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            code = 1
            try:
                job(rank)
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


JOBS = {job.__name__: job for job in (damaged, not_followed, self_sharded, tensor_parallel)}


def main(where: Path, jobs: list[str]) -> None:
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    shard_on_cpu()
    codes: dict[str, list[int]] = {}
    for job in jobs:
        place = where / job
        place.mkdir()
        if job == "resumed":
            for step, folder, killed in (("whole", "a", False), ("killed", "b", True), ("again", "b", False)):
                codes[step] = start(partial(resumed, place / folder, killed))
            (place / "digests.json").write_text(json.dumps([digest(place / f) for f in "ab"]))
            continue
        if job == "tensor_parallel":
            llama(place / "base")
        codes[job] = start(partial(JOBS[job], place))
    print(json.dumps(codes))
