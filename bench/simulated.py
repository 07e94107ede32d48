"""A repository of very many versions that share one small pack: real log entries, no weights.

Owns what such a version says of itself. Entries are written as they are, without the commit protocol and
without waiting for the disk; bundles and checkpoints are written by the store itself where they are due.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import msgspec

import stemmata
from stemmata.catalog.checkpointing import write_due
from stemmata.catalog.checkpoints import EVERY
from stemmata.ids import Digest, VersionId
from stemmata.log import ops
from stemmata.log.bundles import write_due_bundles
from stemmata.log.entries import Position, encode_entry, log_key, read_entry
from stemmata.names import name_key
from stemmata.records import Content, Record, Run, Stored, encode_record, timestamp
from stemmata.storage.local import LocalStorage

RUN = 10
"""Versions of a run; all of them have its config."""
MODELS = 5
"""The first of which has half of all versions."""
_START = datetime(2024, 1, 1, tzinfo=UTC)
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def model_of(run: int) -> str:
    return "m0" if run % 2 == 0 else f"m{1 + run // 2 % (MODELS - 1)}"


def config_of(run: int, chance: random.Random) -> dict[str, Stored]:
    """40 keys, as a training's arguments and an adapter's config give them."""
    rank = chance.choice([4, 8, 16, 32])
    return {
        "learning_rate": chance.choice([1e-5, 2e-5, 5e-5, 1e-4, 2e-4]),
        "per_device_train_batch_size": chance.choice([8, 16, 32]),
        "gradient_accumulation_steps": chance.choice([1, 2, 4]),
        "num_train_epochs": float(RUN),
        "weight_decay": chance.choice([0.0, 0.01, 0.1]),
        "warmup_ratio": 0.06,
        "lr_scheduler_type": chance.choice(["linear", "cosine", "constant_with_warmup"]),
        "optim": "adamw_torch_fused",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 1.0,
        "seed": chance.randrange(10_000),
        "data_seed": run,
        "bf16": True,
        "fp16": False,
        "tf32": None,
        "gradient_checkpointing": chance.random() < 0.5,
        "max_length": 1024,
        "packing": False,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_steps": 10,
        "dataloader_num_workers": 2,
        "group_by_length": False,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "torch_compile": False,
        "output_dir": f"out/run-{run:05d}",
        "lora.r": rank,
        "lora.lora_alpha": 2 * rank,
        "lora.lora_dropout": 0.05,
        "lora.bias": "none",
        "lora.target_modules": list(_TARGETS[: chance.choice([2, 4, 7])]),
        "lora.task_type": "CAUSAL_LM",
        "lora.use_rslora": False,
        "model.model_type": "qwen2",
        "model.hidden_size": 896,
        "model.num_hidden_layers": 24,
        "model.vocab_size": 151_936,
    }


def build(folder: Path, versions: int, seed: int = 1) -> None:
    """Make the repository; the same arguments give the same records."""
    source = folder.with_name(folder.name + "-source")
    source.mkdir(parents=True)
    (source / "config.json").write_text('{"model_type": "qwen2"}')
    (source / "adapter.bin").write_bytes(bytes(range(256)) * 64)
    with stemmata.open(folder, create=True) as repo:
        first = repo.save(source, "m0", name="run-00000/base", provenance={})
        row = repo.session.row(first.id)
        packs = [pack.hex for pack in repo.session.packs(row)]
        content, tree = first.record.content, list(row.tree)
        identity = repo.session.identity
        here = identity.genesis
        repo.accept_older()  # what follows writes its log anew
    storage = LocalStorage(folder)
    made = read_entry(1, storage.get(log_key(1)), here)
    # As if that had been long ago: no later entry counts as earlier than the first.
    (folder / log_key(1)).unlink()
    shutil.rmtree(folder / "cache")
    later = _entries(first.id, content, tree, packs, versions - 1, random.Random(seed))
    for changes in chain([made.ops], later):
        at = timestamp(_START + timedelta(minutes=5 * here.n))
        data = encode_entry(here, changes, txn=f"{here.n:032x}", at=at, by="someone@somewhere")
        (folder / log_key(here.n + 1)).write_bytes(data)
        here = Position(here.n + 1, Digest.of(data), at)
        write_due_bundles(storage, here.n)
        if here.n % EVERY == 0:
            write_due(storage, identity, here.n)


def _entries(
    first: VersionId, content: Content, tree: list[str], packs: list[str], count: int, chance: random.Random
) -> Iterator[list[ops.Op]]:
    before = first
    config: dict[str, Stored] = {}
    production: dict[str, str] = {}
    for i in range(count):
        number, epoch = i // RUN, i % RUN + 1
        model, run = model_of(number), Run(f"{number:016x}", f"run-{number:05d}")
        if epoch == 1:
            config = config_of(number, chance)
        loss = 2.0 / (1 + 0.2 * epoch) + chance.random() * 0.1
        record = Record(
            created_at=timestamp(_START + timedelta(minutes=5 * i)),
            nonce=f"{i:016x}",
            content=Content(Digest.of(b"%d" % i).hex, content.files, content.bytes),
            author="someone@somewhere",
            message=f"epoch {epoch} of run {number}" if epoch == RUN else "",
            parents=[before.hex],
            run=run,
            step=epoch * 500,
            epoch=float(epoch),
            event="epoch",
            kind="adapter",
            metrics={
                "eval_loss": loss,
                "eval_f1": min(1.0, 0.5 + 0.04 * epoch + chance.random() * 0.1),
                "loss": loss * 0.9,
                "grad_norm": chance.random(),
                "learning_rate": 1e-4 * (1 - epoch / RUN),
                "eval_runtime": 10 + chance.random(),
            },
            config=config,
            data={"train.rows": 120_000, "train.fingerprint": f"{number:016x}", "eval.rows": 4_000},
            provenance={},
        )
        data = encode_record(record)
        version = VersionId.of(data)
        name = f"{run.name}/epoch-{epoch}"
        yield [
            ops.VersionAdd(model=model, name=name, record=msgspec.Raw(data), tree=tree, packs=packs),
            *_sometimes(i, model, version, production, chance),
        ]
        before = version


def _sometimes(
    i: int, model: str, version: VersionId, production: dict[str, str], chance: random.Random
) -> Iterator[ops.Op]:
    """What is said of a version beside its record: of every tenth something, of few all."""
    if i % 10 == 9:
        metrics = {"accuracy": chance.random(), "eval_f1": chance.random()}
        yield ops.VersionAnnotate(version=version.hex, metrics=metrics, labels={"stage": "candidate"})
    if i % 50 == 9:
        before = production.get(model)
        production[model] = version.hex
        yield ops.RefSet(
            model=model, kind="alias", name="production", to=version.hex, expect=before, why="passed the gate"
        )
    if i % 100 == 9:
        yield ops.RefSet(model=model, kind="tag", name=name_key(f"v{i // 100}"), to=version.hex)
