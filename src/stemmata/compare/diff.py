"""The whole difference of two versions. Owns its parts' order; each part says how it compares."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from stemmata.catalog.kinship import Kinship
from stemmata.compare import lora
from stemmata.compare.architectures import architecture_notes, opaque_notes, renamed_notes
from stemmata.compare.environment import KINDS, EnvironmentDiff, Item, environment_changes, items
from stemmata.compare.lora import LoraFacts
from stemmata.compare.readings import Point, Reading
from stemmata.compare.records import (
    Change,
    Changes,
    MetricChange,
    Way,
    about_of,
    changes,
    config_of,
    data_of,
    equal,
    metric_changes,
    provenance_changes,
)
from stemmata.compare.sides import Side, differing
from stemmata.compare.source import TOLD_ELSEWHERE, CodeDiff, code_changes
from stemmata.compare.statistics import WeightsDiff
from stemmata.compare.tensors import FilesDiff, TensorsDiff, compare_files, compare_tensors
from stemmata.compare.texts import TextChange, compare_texts
from stemmata.compare.tokenizers import TokenizerDiff, compare_tokenizers
from stemmata.deferred import deferred
from stemmata.errors import Damage
from stemmata.ids import VersionId
from stemmata.records import Value

if TYPE_CHECKING:
    from stemmata.compare import deltas, factors, paged, pictured
    from stemmata.compare.deltas import DeltaDiff
    from stemmata.pictures.heatmap import HeatMap
    from stemmata.pictures.spectra import Spectra
else:
    # numpy comes with them, and most versions have no LoRA.
    deltas = deferred("stemmata.compare.deltas")
    factors = deferred("stemmata.compare.factors")
    paged = deferred("stemmata.compare.paged")
    pictured = deferred("stemmata.compare.pictured")

__all__ = ["Diff", "LoraDiff", "Side", "compare"]

_TEXTS = frozenset(
    [
        ".json",
        ".jsonl",
        ".md",
        ".txt",
        ".py",
        ".sh",
        ".yaml",
        ".yml",
        ".toml",
        ".cfg",
        ".ini",
        ".jinja",
        ".csv",
    ]
)
_SMALL = 64 << 10


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
    environment: EnvironmentDiff
    """Packages, the machine and its variables, the most important first."""
    code: CodeDiff
    """The commit, the command line, and sources that were kept with both."""
    tokenizer: TokenizerDiff
    files: FilesDiff
    texts: tuple[TextChange, ...]
    """Small text files that differ, line by line; not those of the tokenizer."""
    tensors: TensorsDiff
    lora: LoraDiff
    notes: tuple[str, ...] = ()
    """What is to be known of the comparison as a whole, such as that the architectures differ."""
    weights: WeightsDiff | None = None
    """How far the tensors moved; None where nobody asked."""
    kinship: Kinship | None = None
    """How one comes from the other, or both from a third; None where nobody looked."""
    point: Point | None = None
    """The step or epoch at which `metrics` are; None: at each version's end."""
    readings: tuple[Reading, Reading] | None = None
    """Where the metrics at `point` stand, or why there are none."""

    @property
    def same_bytes(self) -> bool:
        """Both versions hold the very same files."""
        return not self.files

    @property
    def descent(self) -> str:
        """How one comes from the other, or both from a third, in words; empty where that is not known."""
        kin = self.kinship
        if kin is None or self.a == self.b or kin.far:
            return ""
        if kin.ancestor is None:
            return "no common ancestor in this repository"
        if kin.ancestor in (self.a, self.b):
            later, earlier = ("b", "a") if kin.ancestor == self.a else ("a", "b")
            steps = kin.steps_a + kin.steps_b
            return f"{later} comes from {earlier}" + (f", {steps:,} versions later" if steps > 1 else "")
        before = f"{kin.steps_a:,} {'version' if kin.steps_a == 1 else 'versions'} before a"
        return f"both come from {kin.ancestor.short}, {before}, {kin.steps_b:,} before b"

    def heatmap(self) -> HeatMap:
        """How far each module of each layer moved; of two LoRAs delta-W, whose factors are read then."""
        return pictured.heatmap(self)

    def spectra(self) -> Spectra | None:
        """What directions the delta-Ws of both sides have; None unless both have a LoRA that can be read."""
        return pictured.spectra(self)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A page that needs no network and no other file. Raises PictureNotWritten."""
        return paged.page(self).to_html(path)

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
            "environment": self.environment.to_dict(),
            "code": self.code.to_dict(),
            "tokenizer": self.tokenizer.to_dict(),
            "files": self.files.to_dict(),
            "texts": [text.to_dict() for text in self.texts],
            "tensors": self.tensors.to_dict(),
            "lora": self.lora.to_dict(),
            "weights": self.weights.to_dict() if self.weights is not None else None,
            "notes": list(self.notes),
            "kinship": self.kinship.to_dict() if self.kinship is not None else None,
            "readings": [r.to_dict() for r in self.readings] if self.readings is not None else None,
        }


def compare(a: Side, b: Side, way: Way = lambda _: None) -> Diff:
    """Compare two versions by their records and trees. Of the files a tokenizer's and adapter_config.json are
    read, of the provenance what differs; the factors of LoRA when somebody asks for what they make."""
    files = compare_files(a.tree, b.tree)
    # Where no file differs no tensor does: then no header is read.
    more = (a.unnamed(), b.unnamed()) if files else ((), ())
    tensors = compare_tensors(a.tree, b.tree, *more)
    tokenizer = compare_tokenizers(a.tree, b.tree, a.read, b.read)
    return Diff(
        a=a.id,
        b=b.id,
        label_a=a.label,
        label_b=b.label,
        about=changes(about_of(a.record), about_of(b.record)),
        config=changes(config_of(a.record), config_of(b.record)),
        metrics=metric_changes(a.metrics, b.metrics, way, (a.datasets, b.datasets)),
        data=changes(data_of(a.record), data_of(b.record)),
        provenance=provenance_changes(a.record, b.record, a.redacted, b.redacted),
        environment=_compare_environments(a, b),
        code=_compare_code(a, b),
        tokenizer=tokenizer,
        files=files,
        texts=tuple(_compare_texts(files, a, b, tokenizer.files)),
        tensors=tensors,
        lora=_compare_lora(a, b),
        notes=(
            *architecture_notes(a.record, b.record, tensors),
            *renamed_notes(tensors),
            *opaque_notes(files, tensors),
        ),
    )


def _compare_texts(files: FilesDiff, a: Side, b: Side, elsewhere: Collection[str]) -> Iterator[TextChange]:
    """Of the files that changed and are small texts; those of the tokenizer are told `elsewhere`."""
    for change in files.changed:
        path = PurePosixPath(change.path)
        small = max(change.a.size, change.b.size) <= _SMALL
        if (
            path.suffix in _TEXTS
            and small
            and path.name not in elsewhere
            and change.a.digest != change.b.digest
        ):
            try:
                yield compare_texts(change.path, a.read(change.path), b.read(change.path))
            except Damage as error:
                yield TextChange(change.path, note=f"cannot be read: {error.kind}")


def _compare_environments(a: Side, b: Side) -> EnvironmentDiff:
    pairs, unknown, alike = differing(a, b, KINDS)
    sides: tuple[dict[Item, Value], dict[Item, Value]] = ({}, {})
    for kind, documents in pairs.items():
        try:
            told = [items({kind: data}) for data in documents]
        except ValueError as error:
            unknown[kind] = f"cannot be read: {error}"
            continue
        for side, found in zip(sides, told, strict=True):
            side.update(found)
    return environment_changes(*sides, unknown, alike)


def _compare_code(a: Side, b: Side) -> CodeDiff:
    kinds = sorted({*a.record.provenance, *b.record.provenance} - TOLD_ELSEWHERE)
    return code_changes(*differing(a, b, kinds))


def _compare_lora(a: Side, b: Side) -> LoraDiff:
    of_a, of_b = lora.facts(a.tree, a.read), lora.facts(b.tree, b.read)
    if of_a is None or of_b is None:
        return LoraDiff(of_a, of_b, ())
    left, right = of_a.to_dict(), of_b.to_dict()
    changed = tuple(Change(key, left[key], right[key]) for key in left if not equal(left[key], right[key]))
    return LoraDiff(of_a, of_b, changed, cache(lambda: _measure(a, b)))


def _measure(a: Side, b: Side) -> DeltaDiff | None:
    first, second = factors.adapter_of(a.tree, a.read), factors.adapter_of(b.tree, b.read)
    if first is None or second is None or a.fill is None or b.fill is None:
        return None
    bases = {base.digest for base in (a.record.base, b.record.base) if base is not None and base.digest}
    notes = ("their bases differ: each delta-W is added to other weights",) if len(bases) > 1 else ()
    return deltas.compare_deltas(first, second, a.fill, b.fill, notes)
