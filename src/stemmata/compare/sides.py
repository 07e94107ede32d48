"""Side: one version as comparisons take it. Owns what can be had of its provenance, and why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stemmata.compare.tensors import Tensor
from stemmata.compare.unnamed import unnamed_tensors
from stemmata.errors import StemmataError
from stemmata.ids import VersionId
from stemmata.measurements import Dataset
from stemmata.records import Record
from stemmata.trees import Tree

if TYPE_CHECKING:
    from stemmata.compare.factors import FillObject


@dataclass(frozen=True, slots=True)
class Side:
    """A version: `metrics` with annotations merged in; `read` gives the bytes of a file of the tree,
    `provenance` those of an object that the record names by kind, `read_object` those of an object of the
    tree, `fill` decodes one into memory. All of these verify what they give."""

    id: VersionId
    label: str
    record: Record
    metrics: Mapping[str, float]
    tree: Tree
    read: Callable[[str], bytes]
    redacted: Mapping[str, str] = field(default_factory=dict)
    """Kinds of provenance that count as erased, and since when."""
    fill: FillObject | None = None
    provenance: Callable[[str], bytes] | None = None
    read_object: Callable[[str], bytes | bytearray | memoryview] | None = None
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    """What each metric was measured on, as far as it is known."""

    def unnamed(self) -> list[Tensor]:
        """Tensors that are stored as bytes: see `unnamed`."""
        return list(unnamed_tensors(self.tree, self.read_object)) if self.read_object is not None else []

    def kept(self, kind: str) -> bytes:
        """One object of the provenance. Raises LookupError for one that cannot be had; its text says why,
        and is empty where there never was any."""
        if kind in self.redacted:
            raise LookupError(f"redacted on {self.redacted[kind][:10]}")
        if kind not in self.record.provenance:
            raise LookupError("")
        if self.provenance is None:
            raise LookupError("cannot be read here")
        try:
            return self.provenance(kind)
        except StemmataError as error:
            raise LookupError(f"cannot be read: {error.kind}") from error


def differing(
    a: Side, b: Side, kinds: Sequence[str]
) -> tuple[dict[str, tuple[bytes, bytes]], dict[str, str], tuple[str, ...]]:
    """Of these kinds of provenance what both have and what differs; why others cannot be compared; which are
    the very same. Of what was redacted nothing is told, not even whether it is the same: a digest tells those
    who can guess."""
    pairs: dict[str, tuple[bytes, bytes]] = {}
    unknown: dict[str, str] = {}
    alike: list[str] = []
    for kind in kinds:
        hidden = kind in a.redacted or kind in b.redacted
        digests = a.record.provenance.get(kind), b.record.provenance.get(kind)
        if digests == (None, None):
            continue
        if not hidden and digests[0] == digests[1]:
            alike.append(kind)
            continue
        found: list[bytes] = []
        for letter, side in (("a", a), ("b", b)):
            try:
                found.append(side.kept(kind))
            except LookupError as error:
                why = str(error)
                other = "b" if letter == "a" else "a"
                unknown[kind] = f"of {letter} {why}" if why else f"kept with {other} alone"
                break
        if len(found) == 2:
            pairs[kind] = found[0], found[1]
    return pairs, unknown, tuple(alike)
