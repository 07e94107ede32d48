"""Lineage: which version came from which, as a graph. Owns its nodes and edges, and draws nothing.

A version's parents are in its record, so the graph has no circles. What is deleted stays in it where
something came from it, and so does a parent that is not in this repository, by its id alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stemmata.catalog import asking, queries, selecting
from stemmata.catalog.asking import versions_numbered, versions_where
from stemmata.catalog.queries import VersionRow
from stemmata.deferred import deferred
from stemmata.errors import NotFound
from stemmata.ids import SHORT, VersionId
from stemmata.names import name_key
from stemmata.records import Base, Record, decode_record, load_metrics
from stemmata.reproductions import REPEATS
from stemmata.resolve import best_of
from stemmata.resuming import SUFFIX
from stemmata.session import Session

if TYPE_CHECKING:
    from stemmata.histories import pictured
    from stemmata.pictures.lineage import LineageGraph
else:
    pictured = deferred("stemmata.histories.pictured")

ABSENT, OUTSIDE = "absent", "outside"
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Node:
    """A version, or what one came from. Of what is not in this repository only `id` and `name` are known."""

    id: str
    """64 hex digits; of a base model that is no version `base:` and its digest or name."""
    model: str
    name: str
    state: str
    """visible; deleted or forgotten (its bytes are gone); absent: a parent that is not in this repository;
    outside: a base model that is no version."""
    order: int = -1
    """Its place in the log; -1 for what is not in it."""
    run: str | None = None
    run_id: str | None = None
    kind: str = ""
    event: str = ""
    step: int | None = None
    epoch: float | None = None
    created_at: str = ""
    author: str = ""
    message: str = ""
    bytes: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    """Ids, the one that it goes on from first."""
    base: str | None = None
    """The node of the model that it is loaded on."""
    best: bool = False
    """No other of its model is better by the model's metric."""
    repeats: str | None = None
    """Of a run that repeats another one with a change: a version of that one, by the begin of its id."""

    @property
    def short(self) -> str:
        return self.id[:SHORT] if len(self.id) == 2 * VersionId.SIZE else ""

    @property
    def merged(self) -> tuple[str, ...]:
        """Parents but for the first."""
        return self.parents[1:]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe but for NaN and inf among the metrics."""
        return {
            "id": self.id,
            "model": self.model,
            "name": self.name,
            "state": self.state,
            "run": self.run,
            "kind": self.kind,
            "event": self.event,
            "step": self.step,
            "epoch": self.epoch,
            "created_at": self.created_at,
            "author": self.author,
            "message": self.message,
            "bytes": self.bytes,
            "metrics": dict(self.metrics),
            "aliases": list(self.aliases),
            "tags": list(self.tags),
            "parents": list(self.parents),
            "merged": list(self.merged),
            "base": self.base,
            "best": self.best,
            "repeats": self.repeats,
        }


@dataclass(frozen=True, slots=True)
class Edge:
    """From what was there first to what came from it."""

    source: str
    target: str
    kind: str
    """line: the same run goes on, or neither has one; resume: a run of the same name was started again; fork:
    another run, or none, goes on from here; merge: a second or further parent; base: what it is loaded on,
    where the version before it was not loaded on the same."""

    def to_dict(self) -> dict[str, str]:
        return {"from": self.source, "to": self.target, "kind": self.kind}


@dataclass(frozen=True, slots=True)
class Primary:
    """The metric by which a model's best version is told."""

    metric: str
    direction: str
    """min or max."""


@dataclass(frozen=True)
class Lineage:
    """Versions and what they came from: earlier ones before later ones, as the log has them."""

    of: str
    """The model or version that was asked for, as people write it; "" for the whole repository."""
    focus: str | None
    """Id of the version that was asked for; None for a model or all."""
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    primary: Mapping[str, Primary]
    """By model; those whose best version can be told."""

    @cached_property
    def by_id(self) -> dict[str, Node]:
        return {node.id: node for node in self.nodes}

    def __getitem__(self, node: str) -> Node:
        return self.by_id[node]

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def upward(self) -> dict[str, Edge]:
        """By node, the one edge that leads to it in a tree: from its first parent, else from its base."""
        found: dict[str, Edge] = {}
        for edge in self.edges:
            if edge.kind != "merge" and (edge.kind != "base" or edge.target not in found):
                found[edge.target] = edge
        return found

    @cached_property
    def children(self) -> dict[str, list[Node]]:
        """By node, what hangs from it in that tree, earlier ones first."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            if (edge := self.upward.get(node.id)) is not None:
                found.setdefault(edge.source, []).append(node)
        return found

    @property
    def roots(self) -> list[Node]:
        """What came from nothing that is shown."""
        return [node for node in self.nodes if node.id not in self.upward]

    def graph(self) -> LineageGraph:
        """It as a picture: a lane for each run."""
        return pictured.graph(self)

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints; safe for JSON but for NaN and inf among the metrics."""
        return {
            "of": self.of,
            "focus": self.focus,
            "nodes": [node.to_dict() for node in self.nodes],
            "edges": [edge.to_dict() for edge in self.edges],
            "primary": {m: {"metric": p.metric, "direction": p.direction} for m, p in self.primary.items()},
        }

    def _repr_html_(self) -> str:
        return self.graph()._repr_html_()

    def __repr__(self) -> str:
        return f"<Lineage {self.of or 'of all models'}: {len(self.nodes)} nodes, {len(self.edges)} edges>"


def of_version(session: Session, row: VersionRow) -> Lineage:
    """All that a version came from, and all that came from it; not what else came from the former."""
    found = _Gathered(session)
    found.take([row])
    found.take_descendants()
    name = queries.model_name(session.catalog.connection, row.model)
    return found.lineage(f"{name}@{row.name}", row.id.hex)


def of_model(session: Session, model: str, *, at: str | None = None) -> Lineage:
    """All visible versions of a model (by key) and what they came from, of other models too; `at`: those of
    then, as they were then."""
    found = _Gathered(session, at)
    found.take(reversed(selecting.versions(session.catalog.connection, model, at=at)))
    return found.lineage(queries.model_name(session.catalog.connection, model), None)


def of_all(session: Session) -> Lineage:
    """All visible versions of every model but states to resume from, and what they came from."""
    found = _Gathered(session)
    rows = selecting.versions(session.catalog.connection)
    found.take(row for row in reversed(rows) if not row.model.endswith(SUFFIX))
    return found.lineage("", None)


class _Gathered:
    """Versions by id, each with its record; `take` adds what they came from."""

    def __init__(self, session: Session, at: str | None = None) -> None:
        self._connection = session.catalog.connection
        self._at = at
        self._rows: dict[str, VersionRow] = {}
        self._records: dict[str, Record] = {}
        self._absent: dict[str, None] = {}

    def take(self, rows: Iterable[VersionRow]) -> None:
        """These and all of their ancestors and bases."""
        pending = list(rows)
        while pending:
            wanted: dict[str, None] = {}
            for row in pending:
                if row.id.hex not in self._rows:
                    self._rows[row.id.hex] = row
                    # Its bytes were held against its id when the row was read.
                    record = self._records[row.id.hex] = decode_record(row.record)
                    wanted.update(dict.fromkeys(_sources(record)))
            missing = [each for each in wanted if each not in self._rows and each not in self._absent]
            pending = list(_by_ids(self._connection, missing))
            there = {row.id.hex for row in pending}
            self._absent.update(dict.fromkeys(each for each in missing if each not in there))

    def take_descendants(self) -> None:
        """Visible ones of the one version that was taken first, with what those came from beside it: so are
        deleted ones on the way to them."""
        pending = [next(iter(self._rows.values()))]
        found: dict[str, VersionRow] = {}
        loaded_on = _loaded_on(self._connection)
        while pending:
            row = pending.pop()
            after = queries.children(self._connection, row.id, gone=True)
            after += versions_numbered(self._connection, loaded_on.get(row.id.raw, ()))
            for child in after:
                if child.id.hex not in found and not child.model.endswith(SUFFIX):
                    found[child.id.hex] = child
                    pending.append(child)
        self.take(row for row in found.values() if row.state == "visible")

    def lineage(self, of: str, focus: str | None) -> Lineage:
        rows = sorted(self._rows.values(), key=lambda row: row.seq)
        names = {key: queries.model_name(self._connection, key) for key in {row.model for row in rows}}
        primary, best = self._best(names)
        pointers = self._pointers(names)
        outside: dict[str, Node] = {}
        nodes = []
        for row in rows:
            record = self._records[row.id.hex]
            base = self._base(record, outside)
            metrics, repeats = self._annotated(row, record)
            aliases, tags = (tuple(pointers.get((row.id, kind), ())) for kind in ("alias", "tag"))
            nodes.append(
                Node(
                    id=row.id.hex,
                    model=names[row.model],
                    name=row.name,
                    state=self._state(row),
                    order=row.seq,
                    run=row.run,
                    run_id=row.run_id,
                    kind=row.kind,
                    event=row.event,
                    step=row.step,
                    epoch=row.epoch,
                    created_at=row.created_at,
                    author=row.author,
                    message=row.message,
                    bytes=row.bytes,
                    metrics=metrics,
                    aliases=aliases,
                    tags=tags,
                    parents=tuple(each for each in record.parents if _is_id(each)),
                    base=base,
                    best=row.id in best,
                    repeats=repeats,
                )
            )
        absent = [Node(each, "", each[:SHORT], ABSENT) for each in self._absent]
        every = (*outside.values(), *absent, *nodes)
        return Lineage(of, focus, every, tuple(_edges(every)), primary)

    def _state(self, row: VersionRow) -> str:
        if self._at is None:
            return row.state
        return queries.state_at(self._connection, row.seq, self._at) or row.state

    def _annotated(self, row: VersionRow, record: Record) -> tuple[dict[str, float], str | None]:
        """What was measured of it, and what it repeats."""
        merged, repeats = load_metrics(record.metrics), None
        for annotation in queries.annotations_of(self._connection, row.seq, at=self._at):
            merged.update(load_metrics(annotation.metrics))
            repeats = annotation.labels.get(REPEATS, repeats)
        return merged, repeats

    def _base(self, record: Record, outside: dict[str, Node]) -> str | None:
        """The node that a version is loaded on; one for a base that is no version is made."""
        base = record.base
        if base is None or not (base.version or base.digest or base.name_or_path):
            return None  # of one that was in memory alone nothing is known, and two of these are not one
        if base.version is not None and (base.version in self._rows or base.version in self._absent):
            return base.version
        node = f"base:{base.digest or base.name_or_path}"
        outside.setdefault(node, Node(node, "", base.name_or_path, OUTSIDE, kind="model"))
        return node

    def _best(self, models: Mapping[str, str]) -> tuple[dict[str, Primary], set[VersionId]]:
        primary: dict[str, Primary] = {}
        best: set[VersionId] = set()
        for key, name in models.items():
            try:
                found = best_of(self._connection, key, at=self._at)
            except NotFound:
                continue  # no metric tells
            primary[name] = Primary(found.metric, found.direction)
            best.update((found.row.id, *found.ties))
        return primary, best

    def _pointers(self, models: Iterable[str]) -> dict[tuple[VersionId, str], list[str]]:
        found: dict[tuple[VersionId, str], list[str]] = {}
        for key in models:
            for kind in ("alias", "tag"):
                for ref in queries.refs(self._connection, key, kind=kind, at=self._at):
                    found.setdefault((ref.target, kind), []).append(ref.name)
        return found


def _sources(record: Record) -> Iterator[str]:
    """Ids of what a version came from, those that are ids."""
    base: Base | None = record.base
    for each in (*record.parents, base.version if base is not None else None):
        if each is not None and _is_id(each):
            yield each


def _is_id(text: str) -> bool:
    try:
        VersionId.parse(text)
    except ValueError:
        return False
    return True


def _by_ids(connection: Any, ids: Sequence[str]) -> Iterator[VersionRow]:
    for start in range(0, len(ids), _AT_ONCE):
        some = [VersionId.parse(each).raw for each in ids[start : start + _AT_ONCE]]
        marks = ", ".join("?" * len(some))
        yield from versions_where(connection, f"WHERE v.id IN ({marks})", *some)


def _loaded_on(connection: Any) -> dict[bytes, list[int]]:
    """By base, the numbers of the versions that are loaded on it."""
    found: dict[bytes, list[int]] = {}
    sql = "SELECT base, seq FROM versions WHERE base IS NOT NULL ORDER BY seq"
    for base, number in asking.rows(connection, sql):
        found.setdefault(base, []).append(number)
    return found


def _edges(nodes: Sequence[Node]) -> Iterator[Edge]:
    by_id = {node.id: node for node in nodes}
    for node in nodes:
        parents = [by_id[each] for each in node.parents if each in by_id]
        for place, parent in enumerate(parents):
            yield Edge(parent.id, node.id, "merge" if place else _way(parent, node))
        inherited = parents[0].base if parents else None
        if node.base is not None and node.base != inherited and node.base not in node.parents:
            yield Edge(node.base, node.id, "base")


def _way(parent: Node, child: Node) -> str:
    if (parent.run_id, parent.model) == (child.run_id, child.model):
        return "line"
    again = parent.run is not None and child.run is not None and name_key(parent.run) == name_key(child.run)
    return "resume" if again and parent.model == child.model else "fork"
