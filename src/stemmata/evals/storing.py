"""Storing: an eval's numbers and examples become part of a version. Owns how a file of examples is cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stemmata.arguments import metrics_of, text_of
from stemmata.attaching import attach, free_kind
from stemmata.capture import mask
from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog
from stemmata.errors import InvalidArgument
from stemmata.evals.index import Index
from stemmata.evals.lines import Key, Source, checked, parsed
from stemmata.evals.reading import DETAIL, PREFIX, Eval, evals_of
from stemmata.ids import Digest, VersionId
from stemmata.log.ops import Op, VersionAnnotate
from stemmata.measurements import Dataset, details_of
from stemmata.names import clean_name
from stemmata.objects import ObjectWriter
from stemmata.session import Session

PIECE = 16 << 20
"""Bytes of one object, about: a piece ends where a line does."""


@dataclass(slots=True)
class Examples:
    """A file of examples, stored but not yet part of any version."""

    digests: list[Digest] = field(default_factory=list)
    count: int = 0
    bytes: int = 0
    twice: list[int] = field(default_factory=list)
    """Lines with an id that a line before them has, a few."""


def add_eval(
    session: Session,
    version: VersionId,
    name: str,
    *,
    metrics: Mapping[str, float],
    dataset: Dataset,
    source: str = "",
    examples: Source | None = None,
    why: str = "",
    told: Callable[[Examples], object] | None = None,
) -> Eval:
    """Keep an eval's metrics and examples with a version, which must be visible.

    `told` gets what was found in the examples. Raises InvalidExamples, SourceMissing, InvalidArgument,
    InvalidName, VersionNotFound, and as storages do; then nothing was added.
    """
    name = clean_name(name)
    stored = metrics_of(metrics)
    if not stored and examples is None:
        raise InvalidArgument(argument="add_eval", reason="give metrics or examples")
    session.storage.require_writable()
    session.refresh()
    session.row(version)

    def put(writer: ObjectWriter) -> Examples:
        kept = _put(writer, examples) if examples is not None else Examples()
        if told is not None:
            told(kept)
        return kept

    def plan(catalog: Catalog, kept: Examples, packs: list[str]) -> list[Op]:
        row = session.row(version)
        there = {k for a in queries.annotations_of(catalog.connection, row.seq) for k in a.objects}
        first = free_kind(f"{PREFIX}{name}", there)
        kinds = [first if not n else f"{first}+{n + 1}" for n in range(len(kept.digests))]
        said: dict[str, object] = {"name": name}
        if kinds:
            said["examples"] = {"count": kept.count, "bytes": kept.bytes, "objects": kinds}
        return [
            VersionAnnotate(
                version=version.hex,
                metrics=stored or None,
                details={DETAIL: said} | (details_of(dataset, source) or {}),
                objects={k: d.hex for k, d in zip(kinds, kept.digests, strict=True)} or None,
                packs=packs,
                event="eval",
                why=mask(text_of(why)),
            )
        ]

    attach(session, put, plan)
    return [each for each in evals_of(session, session.row(version)) if each.name == name][-1]


def _put(writer: ObjectWriter, source: Source) -> Examples:
    """Store the lines in pieces; at most one is in memory."""
    kept = Examples()
    pending = bytearray()
    key: Key | None = None
    with Index() as index:
        for number, line in enumerate(checked(source), start=1):
            example = parsed(line, number)
            if example is not None:
                kept.count += 1
                key = key or Key.for_examples([[example]], None)
                if key.how == "id":
                    index.add("a", number, key.of(number, example), None)
            if pending and len(pending) + len(line) > PIECE:
                kept.digests.append(writer.put(bytes(pending), "bytes"))
                pending.clear()
            pending += line
            kept.bytes += len(line)
        kept.digests.append(writer.put(bytes(pending), "bytes"))
        index.settle()
        kept.twice = [lines[1] for lines in index.twice("a", 3)]
    return kept
