"""The LoRA of a version as pairs of factors: found by their names, read one pair at a time, as float64.

Owns which tensors make a pair, what stands between (AdaLoRA's and KaSA's values), how convolutions, groups
and stacked experts become matrices, and why a pair cannot be used. Reads no whole file: only the objects
that hold the factors, each verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from stemmata.codecs.dtypes import dtype_of
from stemmata.compare.adapterfiles import (
    Scale,
    beside,
    declared_rank,
    factor,
    in_folder,
    matches,
    module_name,
    pattern_of,
    read_config,
    scale_of,
    whole,
)
from stemmata.compare.floats import ROUNDING, to_float64
from stemmata.compare.tensors import Tensor, tensors_of
from stemmata.containers.base import MAX_ELEMENTS
from stemmata.trees import Tree

if TYPE_CHECKING:
    from stemmata.compare.adapters import Array

FillObject: TypeAlias = Callable[[str, memoryview], None]
"""The object with this digest (hex) into memory of its size, verified. Safe in any thread."""
_MAX_ELEMENTS = 1 << 28
"""Of both factors of a module together: 2 GiB as float64."""
_MAX_EXPERTS = 4096
_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
# Variants whose delta-W is not scale B A, or not that alone (peft 0.21, tuners/lora/config.py).
_VARIANTS = {
    "use_dora": "DoRA: delta-W is told before the magnitudes normalise the sum of it and the base",
    "use_bdlora": "BD-LoRA: block-diagonal factors are not compared",
    "arrow_config": "Arrow: experts are mixed by token; each is told by itself",
    "alora_invocation_tokens": "aLoRA: delta-W acts only after the invocation tokens",
    "monteclora_config": "MonteCLoRA: what is sampled in training is left out",
    "kasa_config": "KaSA: delta-W is told against the truncated base",
    "layer_replication": "layers of the base are replicated",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """The factors of one module, not read yet."""

    module: str
    """Its name in the base model; one of stacked experts with its number, `experts[3]`; behind the
    adapter's name and a colon where that is not the default one."""
    rank: int
    scale: Scale
    b: Tensor
    a: Tensor
    kind: str = "linear"
    """linear, embedding or convolution."""
    between: Tensor | None = None
    """AdaLoRA's E, KaSA's diagonal: (rank,) values that multiply A's rows."""
    magnitude: Tensor | None = None
    """DoRA's magnitude vector."""
    groups: int = 1
    expert: int | None = None
    experts: int = 1

    @property
    def dtype(self) -> str:
        return self.b.dtype if self.b.dtype == self.a.dtype else f"{self.b.dtype}/{self.a.dtype}"

    def same_as(self, other: Pair) -> bool:
        """Whether both hold the very same values at the same scale."""
        return self._values() == other._values()

    def _values(self) -> tuple[object, ...]:
        parts = (self.b, self.a, self.between, self.magnitude)
        told = [t and (t.dtype, t.shape, t.objects) for t in parts]
        return (*told, self.scale, self.kind, self.groups, self.expert, self.experts)


@dataclass(frozen=True, slots=True)
class Adapter:
    """All LoRA of a version. Modules in the order of the files."""

    pairs: Mapping[str, Pair]
    problems: Mapping[str, str]
    """Modules whose factors cannot be used, and why."""
    notes: tuple[str, ...] = ()
    """What is to be known of all of them."""
    biases: int = 0
    """Bias vectors of factors, which are no part of delta-W."""


@dataclass(slots=True)
class _Found:
    sides: dict[str, Tensor] = field(default_factory=dict)
    beside: dict[str, Tensor] = field(default_factory=dict)
    embedding: bool = False


def adapter_of(tree: Tree, read: Callable[[str], bytes]) -> Adapter | None:
    """The factors that a tree's tensors name; None if there are none. Reads adapter_config.json alone."""
    found: dict[tuple[str, str], dict[str, _Found]] = {}
    biases = 0
    # Of a factor in both, the safetensors file counts, as when PEFT loads the folder.
    for tensor in sorted(tensors_of(tree), key=lambda t: t.path.endswith(".safetensors")):
        match, vector = factor(tensor.name), beside(tensor.name)
        part = match or vector
        if part is None:
            continue
        folder = tensor.path.rpartition("/")[0]
        adapter = part["adapter"] or "default"
        module = found.setdefault((folder, adapter), {}).setdefault(module_name(part["module"]), _Found())
        if match is not None:
            module.sides[match["side"]] = tensor
            module.embedding = module.embedding or match["embedding"] is not None
        elif vector is not None and vector["what"] == "B":
            biases += 1
        elif vector is not None:
            module.beside[vector["what"]] = tensor
    found = {key: {n: m for n, m in ms.items() if m.sides} for key, ms in found.items()}
    found = {key: modules for key, modules in found.items() if modules}
    return _adapter(found, tree, read, biases) if found else None


def _adapter(
    found: Mapping[tuple[str, str], Mapping[str, _Found]],
    tree: Tree,
    read: Callable[[str], bytes],
    biases: int,
) -> Adapter:
    sizes = {f.path: f.size for f in tree.files}
    pairs: dict[str, Pair] = {}
    problems: dict[str, str] = {}
    notes: dict[str, None] = {}
    for (folder, adapter), modules in sorted(found.items(), key=lambda kv: (kv[0][0].count("/"), kv[0])):
        config = read_config(in_folder(folder), sizes, read)
        # An adapter's own folder is named like it; a folder of weights holds the default one.
        parts = [folder, *([adapter] if adapter != "default" else [])]
        name = "/".join(part for part in parts if part)
        prefix = f"{name}:" if name and len(found) > 1 else ""
        notes.update(dict.fromkeys(_notes(config or {})))
        for module, parts_found in modules.items():
            try:
                made = list(_pairs(prefix + module, module, parts_found, config))
            except _Unusable as reason:
                problems[prefix + module] = str(reason)
            else:
                pairs.update((pair.module, pair) for pair in made)
    return Adapter(pairs, problems, tuple(notes), biases)


def _notes(config: Mapping[str, Any]) -> Iterator[str]:
    yield from (words for key, words in _VARIANTS.items() if config.get(key))
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_STARTS):
        yield f"begun by {start[:40]}: delta-W is told against the base as that left it"


class _Unusable(Exception):
    """Why a module's factors cannot be used, as a clause."""


def _pairs(label: str, module: str, found: _Found, config: Mapping[str, Any] | None) -> Iterator[Pair]:
    """The one pair of a module, or one for each of the experts stacked in it."""
    if len(found.sides) < 2:
        raise _Unusable(f"one factor of two, {next(iter(found.sides))}")
    if (config or {}).get("use_bdlora"):
        raise _Unusable("its factors are block-diagonal")
    b, a = found.sides["B"], found.sides["A"]
    between = found.beside.get("E", found.beside.get("diag"))
    for tensor in (b, a, *([between] if between is not None else [])):
        _check(tensor)
    for tensor in (b, a):
        if len(tensor.shape) < 2 or 0 in tensor.shape:
            raise _Unusable(f"{tensor.name} has the shape {list(tensor.shape)}")
    rank, own = a.shape[0], b.shape[1]
    convolution = len(a.shape) > 2 or len(b.shape) > 2
    if prod(b.shape[2:]) != 1:
        raise _Unusable(f"{b.name} has the shape {list(b.shape)}, a kernel of its own")
    groups = rank // own if convolution and rank % own == 0 and b.shape[0] % (rank // own) == 0 else 1
    if rank != own * groups:
        raise _Unusable(f"the factors have ranks {rank} and {own}")
    if between is not None and prod(between.shape) != rank:
        raise _Unusable(f"{between.name} has the shape {list(between.shape)} at rank {rank}")
    experts = _experts(module, rank, config)
    if experts > _MAX_EXPERTS or b.shape[0] * rank + prod(a.shape) > _MAX_ELEMENTS:
        raise _Unusable(f"factors of {list(b.shape)} and {list(a.shape)} are too large to be compared")
    whole_module = Pair(
        module=label,
        rank=rank // experts,
        scale=scale_of(config, module, rank // experts),
        b=b,
        a=a,
        kind="embedding" if found.embedding else "convolution" if convolution else "linear",
        between=between,
        magnitude=found.beside.get("magnitude_vector"),
        groups=groups,
        experts=experts,
    )
    if experts == 1:
        yield whole_module
        return
    for expert in range(experts):
        yield replace(whole_module, module=f"{label}[{expert}]", expert=expert)


def _check(tensor: Tensor) -> None:
    if tensor.dtype not in ROUNDING:
        raise _Unusable(f"{tensor.name} is stored as {tensor.dtype or 'bytes'}, no float")
    if prod(tensor.shape) * dtype_of(tensor.dtype).itemsize != tensor.length:
        raise _Unusable(f"{tensor.name} is not as long as its shape {list(tensor.shape)}")


def _experts(module: str, rank: int, config: Mapping[str, Any] | None) -> int:
    """How many experts' factors are stacked in a module that PEFT adapts by `target_parameters`."""
    targets = (config or {}).get("target_parameters")
    declared = whole((config or {}).get("r"))
    if not isinstance(targets, list) or declared is None:
        return 1
    # The second parameter of a module is adapted in a wrapper around the first one's.
    plain = module.removesuffix(".base_layer")
    while plain.endswith(".base_layer"):
        plain = plain.removesuffix(".base_layer")
    owners = [str(t).rpartition(".")[0] for t in targets]
    if not any(matches(plain, owner) for owner in owners if owner):
        return 1
    each = declared_rank(plain, pattern_of((config or {}).get("rank_pattern")), declared)
    return rank // each if each > 0 and rank % each == 0 else 1


class Reader:
    """Reads pairs of one version, in any thread; keeps stacked experts' factors for the next one of them."""

    def __init__(self, fill: FillObject) -> None:
        self._fill = fill
        self._kept: tuple[tuple[str, str], Array, Array] | None = None
        self._lock = Lock()

    def pair(self, pair: Pair) -> tuple[Array, Array]:
        """B (outputs, rank) and A (rank, inputs) as float64. Raises as reading an object does (Damage)."""
        if pair.expert is None:
            b, a = self._whole(pair)
        else:
            with self._lock:
                b, a = self._stacked(pair)
            # A goes by experts, then ranks; B the other way: PEFT's `ParamWrapper.get_delta_weight`.
            a = a.reshape(pair.experts, pair.rank, -1)[pair.expert]
            b = b.reshape(b.shape[0], pair.rank, pair.experts)[:, :, pair.expert]
        return (_blocks(b, pair) if pair.groups > 1 else b), a

    def _stacked(self, pair: Pair) -> tuple[Array, Array]:
        key = pair.b.name, pair.b.path
        if self._kept is None or self._kept[0] != key:
            self._kept = None
            self._kept = key, *self._whole(pair)
        return self._kept[1:]

    def _whole(self, pair: Pair) -> tuple[Array, Array]:
        b, a = self._read(pair.b), self._read(pair.a)
        b, a = b.reshape(b.shape[0], -1), a.reshape(a.shape[0], -1)
        if pair.between is not None:
            a = a * self._read(pair.between).reshape(-1, 1)
        return b, a

    def norm(self, tensor: Tensor) -> float | None:
        """The Euclidean norm of a vector; None if it cannot be read as floats."""
        import numpy as np

        try:
            _check(tensor)
        except _Unusable:
            return None
        return float(np.linalg.norm(self._read(tensor)))

    def _read(self, tensor: Tensor) -> Array:
        memory = bytearray(tensor.length)
        view = memoryview(memory)
        step = MAX_ELEMENTS * dtype_of(tensor.dtype).itemsize
        for place, digest in enumerate(tensor.objects):
            self._fill(digest, view[place * step : min((place + 1) * step, tensor.length)])
        return to_float64(memory, tensor.dtype, tensor.shape)


def _blocks(b: Array, pair: Pair) -> Array:
    """B of a convolution with groups, (outputs, rank): a group's outputs read its share of the rank alone."""
    import numpy as np

    blocks = np.zeros((b.shape[0], pair.rank))
    rows, columns = b.shape[0] // pair.groups, b.shape[1]
    for group in range(pair.groups):
        high, left = group * rows, group * columns
        blocks[high : high + rows, left : left + columns] = b[high : high + rows]
    return blocks
