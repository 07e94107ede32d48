"""The whole difference of two versions. Owns its parts' order; each part says how it compares."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from stemmata.compare import lora
from stemmata.compare.deltas import DeltaDiff, compare_deltas
from stemmata.compare.factors import FillObject, adapter_of
from stemmata.compare.lora import LoraFacts
from stemmata.compare.records import (
    Change,
    Changes,
    MetricChange,
    about_changes,
    config_changes,
    data_changes,
    equal,
    metric_changes,
    provenance_changes,
)
from stemmata.compare.statistics import WeightsDiff
from stemmata.compare.tensors import FilesDiff, TensorsDiff, compare_files, compare_tensors
from stemmata.deferred import deferred
from stemmata.ids import VersionId
from stemmata.records import Record
from stemmata.trees import Tree

if TYPE_CHECKING:
    from stemmata.compare import pictured
    from stemmata.pictures.heatmap import HeatMap
    from stemmata.pictures.spectra import Spectra
else:
    pictured = deferred("stemmata.compare.pictured")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: `metrics` with annotations merged in; `read` gives the bytes of a file of the tree,
    `fill` decodes an object of it into memory."""

    id: VersionId
    label: str
    record: Record
    metrics: Mapping[str, float]
    tree: Tree
    read: Callable[[str], bytes]
    redacted: Mapping[str, str] = field(default_factory=dict)
    """Kinds of provenance that count as erased, and since when."""
    fill: FillObject | None = None


@dataclass(frozen=True, slots=True)
class LoraDiff:
    """The LoRA of both sides (None: has none), and the facts that differ."""

    a: LoraFacts | None
    b: LoraFacts | None
    changed: tuple[Change, ...]
    measure: Callable[[], DeltaDiff | None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def deltas(self) -> DeltaDiff | None:
        """Both sides' delta-W, module by module; None unless both have a LoRA whose weights can be read.

        The factors are read when this is first asked for: the repository must be open then. A module
        whose bytes are damaged says so.
        """
        return self.measure()

    def __bool__(self) -> bool:
        return bool(self.changed) or (self.a is None) != (self.b is None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "a": self.a.to_dict() if self.a else None,
            "b": self.b.to_dict() if self.b else None,
            "changed": {c.key: {"a": c.a, "b": c.b} for c in self.changed},
            "deltas": self.deltas.to_dict() if self.deltas else None,
        }


@dataclass(frozen=True, slots=True)
class Diff:
    """What leads from version `a` to version `b`. Each part is false where nothing differs."""

    a: VersionId
    b: VersionId
    label_a: str
    label_b: str
    about: Changes
    """Kind, run, step, base, author, message."""
    config: Changes
    metrics: tuple[MetricChange, ...]
    """Every metric that either side has, equal ones too."""
    data: Changes
    provenance: Changes
    """By kind, the digests of environment, packages, code and command; `redacted …` of what was."""
    files: FilesDiff
    tensors: TensorsDiff
    lora: LoraDiff
    weights: WeightsDiff | None = None
    """How far the tensors moved; None where nobody asked."""

    @property
    def same_bytes(self) -> bool:
        """Both versions hold the very same files."""
        return not self.files

    def heatmap(self) -> HeatMap:
        """How far each module of each layer moved; of two LoRAs delta-W, whose factors are read then."""
        return pictured.heatmap(self)

    def spectra(self) -> Spectra | None:
        """What directions the delta-Ws of both sides have; None unless both have a LoRA that can be read."""
        return pictured.spectra(self)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A page that needs no network and no other file. Raises PictureNotWritten."""
        return pictured.page(self).to_html(path)

    def to_pandas(self) -> Any:
        """A DataFrame, a row for each tensor. Raises MissingExtra without pandas."""
        return pictured.to_pandas(self)

    def _repr_html_(self) -> str:
        return pictured.snippet(self)

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "a": {"id": self.a.hex, "name": self.label_a},
            "b": {"id": self.b.hex, "name": self.label_b},
            "about": self.about.to_dict(),
            "config": self.config.to_dict(),
            "metrics": {m.key: m.to_dict() for m in self.metrics},
            "data": self.data.to_dict(),
            "provenance": self.provenance.to_dict(),
            "files": self.files.to_dict(),
            "tensors": self.tensors.to_dict(),
            "lora": self.lora.to_dict(),
            "weights": self.weights.to_dict() if self.weights is not None else None,
        }


def compare(a: Side, b: Side) -> Diff:
    """Compare two versions by their records and trees; of the files only adapter_config.json is read, and
    the factors of LoRA when somebody asks for what they make."""
    return Diff(
        a=a.id,
        b=b.id,
        label_a=a.label,
        label_b=b.label,
        about=about_changes(a.record, b.record),
        config=config_changes(a.record, b.record),
        metrics=metric_changes(a.metrics, b.metrics),
        data=data_changes(a.record, b.record),
        provenance=provenance_changes(a.record, b.record, a.redacted, b.redacted),
        files=compare_files(a.tree, b.tree),
        tensors=compare_tensors(a.tree, b.tree),
        lora=_compare_lora(a, b),
    )


def _compare_lora(a: Side, b: Side) -> LoraDiff:
    of_a, of_b = lora.facts(a.tree, a.read), lora.facts(b.tree, b.read)
    if of_a is None or of_b is None:
        return LoraDiff(of_a, of_b, ())
    left, right = of_a.to_dict(), of_b.to_dict()
    changed = tuple(Change(key, left[key], right[key]) for key in left if not equal(left[key], right[key]))
    return LoraDiff(of_a, of_b, changed, cache(lambda: _measure(a, b)))


def _measure(a: Side, b: Side) -> DeltaDiff | None:
    first, second = adapter_of(a.tree, a.read), adapter_of(b.tree, b.read)
    if first is None or second is None or a.fill is None or b.fill is None:
        return None
    bases = {base.digest for base in (a.record.base, b.record.base) if base is not None and base.digest}
    notes = ("their bases differ: each delta-W is added to other weights",) if len(bases) > 1 else ()
    return compare_deltas(first, second, a.fill, b.fill, notes)
