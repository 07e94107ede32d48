"""Packed: which tensors hold no weights as they are, but a quantised or packed form of them. Owns how that is
told: from names and types alone, as the libraries write them.

Such tensors are compared as they are stored: a difference of their numbers is none of the weights'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stemmata.codecs.dtypes import BYTES, dtype_of
from stemmata.compare.tensors import Tensor, TensorsDiff

_INTEGERS = frozenset({"U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"})
_PACKED = {
    # GPTQ and AWQ: eight weights of four bits in an int32; zero points likewise.
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    # compressed-tensors, `pack-quantized`.
    "weight_packed": "compressed-tensors",
    "weight_zero_point": "compressed-tensors",
}
_SCALES = ("_scale", "_scale_inv", "_scales", ".scale", ".scales")


def packed_forms(tensors: TensorsDiff) -> Mapping[str, str]:
    """By name what the tensors are that differ and hold no plain numbers: `bitsandbytes 4-bit`, `Q4_K`, …"""
    changes = [*tensors.changed, *tensors.refitted]
    if all(_is_plain(t.dtype) for c in changes for t in (c.a, c.b)):
        return {}
    names_a = _names(t for part in (tensors.same, tensors.removed) for t in part) | {
        c.a.name for c in changes
    }
    names_b = _names(t for part in (tensors.same, tensors.added) for t in part) | {c.b.name for c in changes}
    four_a, four_b = _four_bits(names_a), _four_bits(names_b)
    found = {}
    for change in changes:
        form = form_of(change.a, names_a, four_a) or form_of(change.b, names_b, four_b)
        if form:
            found[change.name] = form
    return found


def form_of(tensor: Tensor, names: frozenset[str], four_bits: frozenset[str]) -> str:
    """What form a tensor has, as far as its type and its neighbours' names tell; empty for plain numbers."""
    name, word = tensor.name, tensor.dtype
    if dtype_of(word) is BYTES:
        return word or "of no known type"
    if word not in _INTEGERS and not word.startswith("F8"):
        return ""
    # bitsandbytes: `weight`, with `weight.absmax`, `weight.quant_map` and `weight.quant_state.…` beside it.
    beside = name.partition(".quant_state.")[0]
    if any(part in four_bits for part in (beside, name.rpartition(".")[0])):
        return "bitsandbytes 4-bit"
    last = name.rpartition(".")[2]
    if word == "I8" and f"{name.removesuffix(last)}SCB" in names:
        return "bitsandbytes 8-bit"
    if word in _INTEGERS and last in _PACKED:
        return _PACKED[last]
    if word == "U8" and last.endswith(("_blocks", "_scales")):
        other = f"{name[: -len('_blocks')]}_{'scales' if last.endswith('_blocks') else 'blocks'}"
        if other in names:
            return "MXFP4"
    stem = name.removesuffix(".weight")
    if any(f"{start}{scale}" in names for start in {name, stem} for scale in _SCALES):
        return f"{word} with scales of its own"
    if word in ("I8", "U8") and last == "weight" and len(tensor.shape) > 1:
        return f"{word} weights"
    return ""


def _is_plain(word: str) -> bool:
    return word not in _INTEGERS and not word.startswith("F8") and dtype_of(word) is not BYTES


def _names(tensors: Iterable[Tensor]) -> frozenset[str]:
    return frozenset(t.name for t in tensors)


def _four_bits(names: Iterable[str]) -> frozenset[str]:
    """The weights that bitsandbytes keeps in four bits: their state has a name of its own kind."""
    return frozenset(name.partition(".quant_state.")[0] for name in names if ".quant_state." in name)
