"""Surprises: what about a version nobody would expect who knows its parent. Owns what counts as one.

Told from two lists of tensors and what was learnt of their numbers; reads no weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from stemmata.compare.adapterfiles import CONFIG
from stemmata.compare.tensors import Tensor, TensorChange, TensorsDiff, compare_tensors, tensors_of
from stemmata.records import Statistics
from stemmata.trees import Tree

_MUCH = 3.0
"""Times the parent's bytes of weights from which a version is told to have grown."""
_LITTLE = 1 << 20
"""Bytes of weights below which growth is nobody's concern."""
_NAMED = 3
_VOCABULARY = re.compile(r"(?:^|[._])(?:wte|embed\w*|shared|lm_head|word_embeddings|embeddings?)(?:[._]|$)")


class Surprise(msgspec.Struct, frozen=True):
    """`kind`: nonfinite, exploded, grown, dtype, missing, vocabulary, shape; of a save also token.
    `text`: a clause for people."""

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


def surprises(before: Tree | None, after: Tree, learnt: Statistics | None) -> list[Surprise]:
    """Of a version against its parent's files; with no parent only what its own numbers tell."""
    found = list(_of_numbers(learnt))
    if before is None or _is_adapter(before) != _is_adapter(after):
        return found  # an adapter and the model below it have no tensors in common, and nobody expects any
    tensors = compare_tensors(before, after)
    old, new = list(tensors_of(before)), list(tensors_of(after))
    if old and new:
        found += [*_growth(old, new, tensors), *_types(tensors), *_missing(tensors), *_shapes(tensors)]
    return found


def _is_adapter(tree: Tree) -> bool:
    return any(file.path.rpartition("/")[2] == CONFIG for file in tree.files)


def _of_numbers(learnt: Statistics | None) -> Iterator[Surprise]:
    if learnt is None:
        return
    if learnt.nonfinite:
        one = learnt.nonfinite == 1
        some = "1 of its weights is" if one else f"{learnt.nonfinite:,} of its weights are"
        yield Surprise("nonfinite", f"{some} not finite (NaN or infinite)")
    if learnt.grown:
        yield Surprise("exploded", f"ten times the norm that its parent has: {_listed(learnt.grown)}")


def _growth(old: Sequence[Tensor], new: Sequence[Tensor], tensors: TensorsDiff) -> Iterator[Surprise]:
    before, after = (sum(t.length for t in side) for side in (old, new))
    if after < _LITTLE or after < _MUCH * before:
        return
    times = f"{after / before:.1f} times the weights of its parent" if before else "its parent had no weights"
    along = sorted(tensors.added, key=lambda t: -t.length)
    came = f"; {_listed([t.label for t in along])} came along" if along else ""
    yield Surprise("grown", times + came)


def _types(tensors: TensorsDiff) -> Iterator[Surprise]:
    changes = Counter((c.a.dtype, c.b.dtype) for c in tensors.refitted if c.retyped)
    for (old, new), count in changes.most_common():
        yield Surprise("dtype", f"{_tensors(count)} {new}, in its parent {old}")


def _missing(tensors: TensorsDiff) -> Iterator[Surprise]:
    if tensors.removed:
        names = [t.label for t in tensors.removed]
        yield Surprise("missing", f"{_tensors(len(names))} missing that its parent has: {_listed(names)}")


def _shapes(tensors: TensorsDiff) -> Iterator[Surprise]:
    rows: dict[tuple[int, int], list[str]] = {}
    others: list[str] = []
    for change in tensors.refitted:
        if not change.reshaped:
            continue
        if _is_vocabulary(change):
            rows.setdefault((change.a.shape[0], change.b.shape[0]), []).append(change.name)
        else:
            others.append(change.name)
    for (old, new), names in rows.items():
        yield Surprise("vocabulary", f"a vocabulary of {new:,} in place of {old:,} ({_listed(names)})")
    if others:
        yield Surprise("shape", f"other shapes than in its parent: {_listed(others)}")


def _is_vocabulary(change: TensorChange) -> bool:
    old, new = change.a.shape, change.b.shape
    if len(old) != len(new) or not old or old[1:] != new[1:]:
        return False
    return _VOCABULARY.search(change.name.lower()) is not None


def _tensors(count: int) -> str:
    return "1 tensor is" if count == 1 else f"{count:,} tensors are"


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    more = len(known) - _NAMED
    return ", ".join(known[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
