"""A history of a few MB that is made up in a moment: to try the benchmarks, not to measure anything.

Owns its shapes: full versions, one with half its tensors frozen, an adapter. Noise stands for training.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from manifests import Line, Shelf

_WIDTH, _LAYERS = 256, 8


def _weights(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        f"layer.{i}.weight": random.normal(0, 0.02, (_WIDTH, _WIDTH)).astype(np.float32)
        for i in range(_LAYERS)
    }


def _moved(weights: dict[str, np.ndarray], seed: int, frozen: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    steps = {name: random.normal(0, 1e-5, w.shape).astype(np.float32) for name, w in weights.items()}
    return {n: w if i < frozen else w + steps[n] for i, (n, w) in enumerate(weights.items())}


def _folder(tensors: dict[str, np.ndarray], folder: Path, file: str = "model.safetensors") -> None:
    save_file(tensors, folder / file)
    (folder / "config.json").write_text(json.dumps({"width": _WIDTH, "layers": _LAYERS}), encoding="utf-8")


def made(shelf: Shelf) -> None:
    weights = _weights(0)
    shelf.put("base", (), "model", "made up", lambda folder: _folder(weights, folder))
    parent = "base"
    for number in (1, 2):
        weights, name = _moved(weights, number), f"full-{number}"
        shelf.put(name, (parent,), "model", "with noise", lambda folder, w=weights: _folder(w, folder))
        parent = name
    half = _moved(weights, 3, frozen=_LAYERS // 2)
    shelf.put("frozen-1", (parent,), "model", "noise in half of it", lambda folder: _folder(half, folder))
    lora = {
        f"layer.{i}.lora_{side}": np.random.default_rng(9 + i).normal(0, 0.02, (4, _WIDTH)).astype(np.float32)
        for i in range(_LAYERS)
        for side in "AB"
    }
    shelf.put(
        "lora-r4",
        ("base",),
        "adapter",
        "a made-up adapter",
        lambda folder: _folder(lora, folder, "adapter_model.safetensors"),
    )


HISTORIES: dict[str, list[Line]] = {"tiny": [("made", made)]}
