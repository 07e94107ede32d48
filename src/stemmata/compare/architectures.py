"""Architectures: what kind of model a version holds, and what is to be said where two are of different kinds.
Owns how a block of layers is told from a tensor's name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from stemmata.compare.tensors import FilesDiff, Tensor, TensorsDiff
from stemmata.describe import is_of_training
from stemmata.records import Record, load_value

_KEYS = ("model.architecture", "model.architectures", "model.model_type")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz")
_NAMED = 3
_LAYER = re.compile(r"(?:^|\.)\d+(?=\.)")


def architecture_of(record: Record) -> str:
    """The model's class, else its type; empty where nobody said."""
    for key in _KEYS:
        value = load_value(record.config.get(key))
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str) and value:
            return value
    return ""


def architecture_notes(a: Record, b: Record, tensors: TensorsDiff) -> Iterator[str]:
    """Said where the models are of different kinds, or have few tensors in common."""
    common = len(tensors.same) + len(tensors.changed) + len(tensors.refitted)
    of_a, of_b = common + len(tensors.removed), common + len(tensors.added)
    first, second = architecture_of(a), architecture_of(b)
    differ = bool(first and second and first != second)
    if not of_a or not of_b or not (differ or 2 * common < min(of_a, of_b)):
        return
    kinds = f"different architectures, {first} and {second}" if differ else "different models"
    fitting = common - sum(change.reshaped for change in tensors.refitted)
    if not common:
        yield f"{kinds}: no tensor of one has the name of one of the other"
    else:
        yield (
            f"{kinds}: of {of_a:,} and {of_b:,} tensors {common:,} have the same name, {fitting:,} of them "
            "the same shape; those are compared, the others listed"
        )


def renamed_notes(tensors: TensorsDiff) -> Iterator[str]:
    """Said of tensors that have another name, and the very same numbers. Of bytes that several have, as zeros
    do, nobody can say which is which."""

    def single(side: Sequence[Tensor]) -> dict[tuple[object, ...], str]:
        content = [(t.dtype, t.shape, t.objects) for t in side]
        counts = Counter(content)
        return {key: t.label for key, t in zip(content, side, strict=True) if counts[key] == 1 and t.objects}

    before, after = single(tensors.removed), single(tensors.added)
    found = [f"{name} → {after[key]}" for key, name in before.items() if key in after]
    if found:
        have = "1 tensor has" if len(found) == 1 else f"{len(found):,} tensors have"
        more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
        yield f"{have} another name and the same numbers: {', '.join(found[:_NAMED])}{more}"


def opaque_files(files: FilesDiff, tensors: TensorsDiff) -> Iterator[tuple[str, str]]:
    """Files of weights that differ (changed, added, removed) and whose tensors nobody can tell apart without
    unpickling, or at all: path and which of the three."""
    cut = {tensor.path for change in (*tensors.changed, *tensors.refitted) for tensor in (change.a, change.b)}
    cut |= {tensor.path for part in (tensors.same, tensors.added, tensors.removed) for tensor in part}
    found = [(change.path, "changed") for change in files.changed if change.a.digest != change.b.digest]
    found += [(file.path, "added") for file in files.added]
    found += [(file.path, "removed") for file in files.removed]
    for path, what in found:
        if is_weights(path) and path not in cut:
            yield path, what


def is_weights(path: str) -> bool:
    """Whether a file holds weights, by its name."""
    return path.endswith(_WEIGHTS) and not is_of_training(path)


def opaque_notes(files: FilesDiff, tensors: TensorsDiff) -> Iterator[str]:
    """Said of files on both sides that are so."""
    found = [path for path, what in opaque_files(files, tensors) if what == "changed"]
    if found:
        yield f"compared as bytes, for no tensors can be told apart in: {', '.join(found)}"


def blocks_of(names: Iterable[str]) -> dict[str, str]:
    """By tensor the layer that it belongs to, or the part outside the layers: `bert.encoder.layer.4`,
    `bert.embeddings`, `lm_head`. A part stands beside the layers: below what all names of its root share."""
    found: dict[str, str] = {}
    roots: dict[str, list[str]] = {}
    for name in names:
        layer = _LAYER.search(name)
        if layer is not None:
            found[name] = name[: layer.end()]
        roots.setdefault(name.partition(".")[0], []).append(name)
    for own in roots.values():
        outside = [name for name in own if name not in found]
        deep = _shared(own) if len(outside) < len(own) else 0
        for name in outside:
            parts = name.split(".")
            found[name] = ".".join(parts[: max(1, min(deep + 1, len(parts) - 1))])
    return found


def _shared(names: Sequence[str]) -> int:
    """How many parts all of these names begin with."""
    split = [name.split(".") for name in (min(names), max(names))]
    return next((n for n, (a, b) in enumerate(zip(*split, strict=False)) if a != b), 0)
