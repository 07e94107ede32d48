"""Wrappers: the names that torch.compile, FSDP and activation checkpointing leave inside weights' names.

Owns taking them out, so that a version's tensors are called as the model's own class calls them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_PARTS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_MAX_HEADER = 100 << 20
_LENGTH = 8


def clean_name(name: str) -> str:
    """A tensor's name without the parts that wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in _PARTS)


def is_wrapped(names: Iterable[str]) -> bool:
    """Whether any name has such a part."""
    return any(clean_name(name) != name for name in names)


def clean_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """`state` under clean names; unchanged where two of them would then be the same."""
    clean = {clean_name(name): value for name, value in state.items()}
    return clean if len(clean) == len(state) else dict(state)


def clean_files(folder: Path) -> None:
    """Rename the tensors in the safetensors files of a folder of one's own, the index too.

    The tensors' bytes are not touched: only the headers and the JSON change.
    """
    for path in sorted(folder.rglob("*.safetensors")):
        _clean_header(path)
    for path in sorted(folder.rglob("*.safetensors.index.json")):
        index = json.loads(path.read_bytes())
        names = index.get("weight_map", {})
        if is_wrapped(names):
            index["weight_map"] = clean_state(names)
            path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _clean_header(path: Path) -> None:
    # https://github.com/huggingface/safetensors#format: u64 length, JSON header, then the bytes, whose
    # offsets count from the header's end.
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if length > _MAX_HEADER or length == 0:  # 0: still to be written
            return
        header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if not is_wrapped(tensors):
            return
        clean = {k: v for k, v in header.items() if k == "__metadata__"} | clean_state(tensors)
        data = json.dumps(clean, separators=(",", ":"), ensure_ascii=False).encode()
        # The format aligns the tensors to eight bytes.
        data += b" " * (-len(data) % _LENGTH)
        fresh = path.with_name(path.name + ".clean")
        with fresh.open("wb") as target:
            target.write(len(data).to_bytes(_LENGTH, "little") + data)
            while chunk := file.read(1 << 22):
                target.write(chunk)
    fresh.replace(path)
