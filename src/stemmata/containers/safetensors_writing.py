"""safetensors, the other way: the header of a file to be written, and the order of its tensors.

Byte for byte what the reference implementation makes of the same tensors. Knows names, types and sizes
alone; whoever holds the tensors writes their bytes behind the header, one after another.
The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

_LENGTH = 8
_METADATA = "__metadata__"
_ORDER = (
    *("U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16"),
    *("F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "F4", "BOOL"),
)
"""Element types in the order in which the reference puts them: those of many bytes first."""
_RANK = {dtype: rank for rank, dtype in enumerate(_ORDER)}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: safetensors' word for its element type, its shape, and its bytes."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def header_of(
    tensors: Mapping[str, TensorEntry], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, list[str]]:
    """Everything before the first tensor's bytes, and the names in the order of their bytes.

    `metadata` None leaves it out; of several entries, whose order the reference leaves to chance, the
    names decide. Raises ValueError for an element type that safetensors has not, and for a tensor that
    has the name of the metadata.
    """
    for name, entry in tensors.items():
        if entry.dtype not in _RANK:
            raise ValueError(f"safetensors knows no element type {entry.dtype!r}")
        if name == _METADATA:
            raise ValueError(f"no tensor of a safetensors file can be called {name!r}")
    names = sorted(tensors, key=lambda name: (_RANK[tensors[name].dtype], name))
    rows: dict[str, object] = {} if metadata is None else {_METADATA: dict(sorted(metadata.items()))}
    at = 0
    for name in names:
        entry = tensors[name]
        end = at + entry.nbytes
        rows[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": (at, end)}
        at = end
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()
    # The tensors begin at a multiple of eight bytes.
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text, names
