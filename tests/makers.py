"""Folders to save, made on the spot without torch: shared by tests of many floors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

WORDS = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "int8": "I8", "uint8": "U8"}


def safetensors_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file as the library writes it: header padded to 8 bytes, data without gaps."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": WORDS[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in tensors.values())


def weights(seed: int, *, layers: int = 2, width: int = 16) -> dict[str, Array]:
    """Float32 tensors of a toy network."""
    rng = np.random.default_rng(seed)
    return {f"layer.{i}.weight": rng.normal(size=(width, width)).astype(np.float32) for i in range(layers)}


def model_folder(folder: Path, seed: int = 0, *, layers: int = 2, width: int = 16) -> Path:
    """A folder like a full `save_pretrained`: config and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "toy", "hidden_size": width}))
    data = safetensors_bytes(weights(seed, layers=layers, width=width), {"format": "pt"})
    (folder / "model.safetensors").write_bytes(data)
    return folder


def adapter_folder(folder: Path, seed: int = 0, *, rank: int = 4, width: int = 16) -> Path:
    """A folder like a LoRA `save_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "toy",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    for module in ("q_proj", "v_proj"):
        prefix = f"base_model.model.layers.0.{module}"
        tensors[f"{prefix}.lora_A.weight"] = rng.normal(size=(rank, width)).astype(np.float32)
        tensors[f"{prefix}.lora_B.weight"] = rng.normal(size=(width, rank)).astype(np.float32)
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors, {"format": "pt"}))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its relative path."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
