"""Reading: which evals a version has, and their examples. Owns what an annotation says of them.

`details` of the annotation holds `{"eval": {"name", "examples": {"count", "bytes", "objects"}}}`, where
`objects` are the kinds that it attaches: `eval:<name>#<n>`, and with `+2`, `+3`, … the pieces after it.
The content of the pieces, joined, is the file as it was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stemmata.catalog import deletions, queries
from stemmata.catalog.queries import AnnotationRow, VersionRow
from stemmata.errors import EvalNotFound, HostileData
from stemmata.evals.lines import MAX_LINE, Example, examples_in
from stemmata.measurements import Dataset, measured
from stemmata.names import name_key
from stemmata.records import load_metrics
from stemmata.redacting import redacted
from stemmata.session import Session

DETAIL = "eval"
PREFIX = "eval:"


@dataclass(frozen=True, slots=True)
class Eval:
    """One eval of a version. `at` is RFC 3339 in UTC; `count` and `bytes` are of its examples."""

    name: str
    metrics: Mapping[str, float]
    dataset: Dataset
    source: str
    at: str
    by: str
    why: str
    count: int
    bytes: int
    kinds: tuple[str, ...]
    """What its examples are attached as; empty if it has none."""

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "metrics": dict(self.metrics),
            "dataset": self.dataset.to_dict() if self.dataset else None,
            "source": self.source,
            "at": self.at,
            "by": self.by,
            "why": self.why,
            "examples": self.count,
            "bytes": self.bytes,
            "kind": self.kinds[0] if self.kinds else None,
        }


def evals_of(session: Session, row: VersionRow, *, at: str | None = None) -> list[Eval]:
    """All evals of a version, or those that it had at a moment, oldest first."""
    annotations = queries.annotations_of(session.catalog.connection, row.seq, at=at)
    return [found for each in annotations if (found := _eval(each)) is not None]


def _eval(annotation: AnnotationRow) -> Eval | None:
    said = annotation.details.get(DETAIL)
    name = said.get("name") if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(name, str):
        return None
    told = said.get("examples")
    examples = told if isinstance(told, dict) else {}
    listed = examples.get("objects")
    kinds = tuple(k for k in listed if k in annotation.objects) if isinstance(listed, list) else ()
    dataset, source = measured(annotation.details)
    return Eval(
        name=name,
        metrics=load_metrics(annotation.metrics),
        dataset=dataset,
        source=source,
        at=annotation.at,
        by=annotation.by,
        why=annotation.why,
        count=_count(examples.get("count")),
        bytes=_count(examples.get("bytes")),
        kinds=kinds,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def with_examples(session: Session, row: VersionRow, name: str, *, at: str | None = None) -> Eval:
    """The last eval of that name that has examples. Raises EvalNotFound, Redacted."""
    found = evals_of(session, row, at=at)
    usable = [each for each in found if each.name == name and each.kinds]
    if not usable:
        usable = [each for each in found if name_key(each.name) == name_key(name) and each.kinds]
    if not usable:
        names = ", ".join(dict.fromkeys(each.name for each in found if each.kinds)) or "none"
        raise EvalNotFound(version=row.id.short, name=name, has=names)
    gone = {r.item: r for r in deletions.redactions(session.catalog.connection, row.seq)}
    for kind in usable[-1].kinds:
        if kind in gone:
            raise redacted(gone[kind], row.id)
    return usable[-1]


def read_lines(session: Session, row: VersionRow, found: Eval) -> Iterator[bytes]:
    """The lines of an eval's file as they were given, verified (I4), one piece in memory at a time."""
    attached: dict[str, str] = {}
    for annotation in queries.annotations_of(session.catalog.connection, row.seq):
        attached.update(annotation.objects)
    rest = b""
    for kind in found.kinds:
        data = rest + bytes(session.read_object(row, attached[kind]))
        begin = 0
        while (end := data.find(b"\n", begin)) >= 0:
            yield data[begin : end + 1]
            begin = end + 1
        rest = data[begin:]
        if len(rest) > MAX_LINE:
            raise HostileData(where=f"{kind} of version {row.id.short}", reason="a line without an end")
    if rest:
        yield rest


def examples_of(session: Session, row: VersionRow, name: str, *, at: str | None = None) -> Iterator[Example]:
    """The examples of the last eval of that name that has some. Raises EvalNotFound, Redacted, Damage."""
    for _, example in examples_in(read_lines(session, row, with_examples(session, row, name, at=at))):
        yield example
