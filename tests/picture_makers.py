"""A model with named layers, trained in three runs, and adapters of it: small, and told apart by design.
And runs, spectra and networks as plain numbers, of any size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from makers import Array, safetensors_bytes
from stemmata.pictures.matrix import Entry
from stemmata.pictures.seen import Seen
from stemmata.pictures.spectra import Values
from stemmata.records import Run
from stemmata.repository import Repository

WIDTH = 12
LAYERS = 4
MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")
WILD = "it;s/onload=alert(1)&amp;$x%2e"
"""As much as a name may hold."""
HOSTILE = '</script><img src=x onerror="window.hacked=1">'


def network(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)

    def made(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32)

    tensors = {"model.embed_tokens.weight": made(30, WIDTH)}
    for layer in range(LAYERS):
        for module in MODULES:
            tensors[f"model.layers.{layer}.{module}.weight"] = made(WIDTH, WIDTH)
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = made(WIDTH)
    tensors["model.norm.weight"] = made(WIDTH)
    tensors["lm_head.weight"] = made(30, WIDTH)
    return tensors


def moved(tensors: dict[str, Array], share: float, seed: int, *, first: int = 0) -> dict[str, Array]:
    """Every layer from `first` on moved by just that share of its norm; the rest as it was."""
    rng = np.random.default_rng(seed)
    found = dict(tensors)
    for name, values in tensors.items():
        parts = name.split(".")
        if parts[1] == "layers" and int(parts[2]) >= first:
            way = rng.normal(size=values.shape)
            way *= share * np.linalg.norm(values.astype(np.float64)) / np.linalg.norm(way)
            found[name] = (values + way).astype(np.float32)
    return found


def write(folder: Path, tensors: dict[str, Array]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": WIDTH}))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors, {"format": "pt"}))
    return folder


def adapter(folder: Path, seed: int, rank: int = 4) -> Path:
    rng = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    for layer in range(LAYERS):
        for module in MODULES[:2]:
            stem = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{stem}.lora_A.weight"] = rng.normal(size=(rank, WIDTH)).astype(np.float32)
            decay = np.exp(-np.arange(rank) * (1 + layer) / 2)
            tensors[f"{stem}.lora_B.weight"] = (rng.normal(size=(WIDTH, rank)) * decay).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    told = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors, {"format": "pt"}))
    return folder


def fill(repo: Repository, work: Path) -> None:
    """`base`; runs `all`, `top` (layers 2 and 3 alone) and WILD, three epochs each; `lora`, two."""
    start = network()
    base = repo.save(write(work / "out", start), "m", name="base", provenance={})
    for number, (run, first, rate) in enumerate((("all", 0, 1e-3), ("top", 2, 2e-4), (WILD, 0, 5e-4))):
        tensors, parent = start, base
        for epoch in (1, 2, 3):
            tensors = moved(tensors, 0.01 * (number + 1), 10 * number + epoch, first=first)
            loss = 1.0 / epoch + 0.1 * number + (0.5 if (run, epoch) == ("top", 3) else 0)
            parent = repo.save(
                write(work / "out", tensors),
                "m",
                name=f"r{number}/epoch-{epoch}",
                run=Run(f"{number:032x}", run),
                epoch=float(epoch),
                step=10 * epoch,
                metrics={"eval_loss": loss, "eval_f1": 1 - loss / 3, HOSTILE: loss, "grad_norm": 2.0},
                config={"learning_rate": rate, "warmup": number, "seed": 1, HOSTILE: HOSTILE},
                message=HOSTILE,
                parents=[parent],
                provenance={},
            )
    for epoch in (1, 2):
        repo.save(
            adapter(work / "adapter", 100 + epoch),
            "lora",
            name=f"epoch-{epoch}",
            run=Run("f" * 32, "lora"),
            epoch=float(epoch),
            metrics={"eval_loss": 1.0 / epoch},
            provenance={},
        )
    repo.alias("m", "production", "m@r0/epoch-2", why="good")
    repo.tag("m", "v1", "m@r1/epoch-3")


def sweep(runs: int = 6, epochs: int = 8, seed: int = 1) -> list[Seen]:
    rng = np.random.default_rng(seed)
    found = []
    for run in range(runs):
        rate, rank = float(10 ** rng.uniform(-5, -3)), int(rng.choice([4, 8, 16, 32]))
        floor, over = 0.3 + 0.3 * rng.random(), 0.012 * rng.random()
        for epoch in range(1, epochs + 1):
            loss = floor + 1.2 * math.exp(-epoch / 1.6) + over * max(0, epoch - 4) ** 1.6
            found.append(
                Seen(
                    id=f"{run:06x}{epoch:06x}",
                    name=f"r{run}/epoch-{epoch}",
                    run=f"r{run}",
                    run_id=f"{run}",
                    epoch=float(epoch),
                    step=50 * epoch,
                    at=f"2026-01-01T00:{run % 60:02d}:{epoch:02d}.000000Z",
                    metrics={"eval_loss": loss, "loss": 0.9 * loss, "eval_f1": 1 - loss / 3},
                    config={
                        "learning_rate": rate,
                        "lora.r": rank,
                        "lora.alpha": 2 * rank,
                        "output_dir": f"{run}",
                    },
                    aliases=("production",) if (run, epoch) == (1, 4) else (),
                )
            )
    return found


def llama(layers: int, frozen: int = 0, seed: int = 0) -> list[Entry]:
    """As many tensors as a model of that many layers has: 9 each, and 3."""
    rng = np.random.default_rng(seed)
    modules = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj"
    norms = "mlp.down_proj input_layernorm post_attention_layernorm"
    found = []
    for layer in range(layers):
        for module in f"{modules} {norms}".split():
            name = f"model.layers.{layer}.{module}.weight"
            if layer < frozen:
                found.append(Entry(name, "still", 0.0, 10.0, 1000, 1000))
            else:
                found.append(Entry(name, "moved", float(rng.lognormal(-2)), 10.0, 1000, 10))
    ends = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    return [*found, *(Entry(name, "moved", 0.01, 10.0, 1000) for name in ends)]


def spectra(layers: int, rank: int = 16, side: int = 0) -> Iterator[Values]:
    for layer in range(layers):
        for module, scale in (("q_proj", 0.5), ("v_proj", 0.8)):
            values = tuple(scale * math.exp(-k * (1 + layer % 3) / 4) for k in range(rank))
            yield Values(f"model.layers.{layer}.self_attn.{module}", values, rank, 3.0 + layer % 3, side)
