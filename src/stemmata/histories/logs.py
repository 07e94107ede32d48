"""Logs: what the run of a version logged, step by step, whatever versions keep it. Owns where that is looked
for, and rows that join a version after its save.

The rows of a run lie with its versions, each with those since the version before (`logrows`); an imported one
has the training's whole `trainer_state.json` instead. So objects are read here: for who asks about one run,
not for tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stemmata import logrows, resuming
from stemmata.attaching import attach, free_kind
from stemmata.catalog import deletions, lines, queries
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.queries import VersionRow
from stemmata.checkouts import read_file
from stemmata.compare.readings import rows_of
from stemmata.errors import StemmataError
from stemmata.ids import Digest, VersionId
from stemmata.log.ops import Op, VersionAnnotate
from stemmata.logrows import Kept, Logged, Placed, Row
from stemmata.names import name_key
from stemmata.objects import ObjectWriter
from stemmata.records import Run
from stemmata.session import Session

_STATE = "trainer_state"
"""The kind of provenance under which an import keeps a training's log."""


def of_run(session: Session, version: VersionRow, *, at: str | None = None) -> Mapping[int, Logged]:
    """What the version's run logged, by step, in order: along the line that the version is of. Of a version
    without a run, what is kept with it. What was redacted, or cannot be read, is not in it, and with `at`
    nothing that was kept later."""
    return of_line(session, version, line_of(session, version), at=at)


def of_line(
    session: Session,
    version: VersionRow,
    line: Sequence[VersionRow],
    *,
    files: bool = True,
    at: str | None = None,
) -> Mapping[int, Logged]:
    """As `of_run`, where its line is known. Without `files` only of what lies beside those: of many runs that
    spares a tree or three of each that kept no rows."""
    parts: list[tuple[str, Sequence[Row]]] = []
    whole, following = True, math.inf
    if at is not None:
        line = [row for row in line if row.at <= at]
    for each in reversed(line):
        kept = _kept_with(session, each, at)
        if kept is None:
            whole = False
            continue
        # What joined it later was followed by nothing then. It ends where a training went on after all.
        late = [row for row in kept.late if row["step"] < following]
        parts.append((called(session, each), [*kept.rows, *late]))
        if kept.is_all:
            break
        following = min((row["step"] for row in kept.rows), default=following)
    found = logrows.joined(reversed(parts))
    if whole or not files:
        return found
    # Some were made by a release that kept no rows, or deleted since: then a log in their files may tell.
    likely = [row for row in _likely(session, version, line) if at is None or row.at <= at]
    more = logrows.joined((called(session, each), rows_of(_file(session, each))) for each in likely)
    return logrows.missing_from(found, more)


def line_of(session: Session, version: VersionRow) -> list[VersionRow]:
    """The version's line in its run, first to last, what came of it included; itself without a run. Of those
    that were deleted only the place is there: they are passed over."""
    run = _run_of(version)
    if run is None:
        return [version]
    connection = session.catalog.connection
    rows = {row.id: row for row in lines.versions(connection, version.model, run)}
    rows.setdefault(version.id, version)
    placed: dict[VersionId, Placed] = {}
    waiting = list(rows.values())
    while waiting:
        row = waiting.pop()
        parents = queries.parents(connection, row.seq)
        parent = parents[0] if parents else None
        if parent is not None and parent not in rows:
            deleted = queries.version_by_id(connection, parent)
            if deleted is None or _run_of(deleted) != run:
                parent = None
            else:
                rows[parent] = deleted
                waiting.append(deleted)
        placed[row.id] = Placed(row.id.hex, parent.hex if parent else None, row.event == "best")
    order = [placed[row.id] for row in sorted(rows.values(), key=lambda row: row.seq)]
    found = [rows[VersionId.parse(each)] for each in logrows.line_of(version.id.hex, order)]
    return [row for row in found if row.state == "visible" or row.id == version.id]


def _run_of(row: VersionRow) -> Run | None:
    return Run(row.run_id, row.run) if row.run_id is not None and row.run is not None else None


def called(session: Session, row: VersionRow) -> str:
    return f"{queries.model_name(session.catalog.connection, row.model)}@{row.name}"


@dataclass(frozen=True, slots=True)
class _Held:
    """The rows that lie with one version."""

    rows: Sequence[Row]
    late: Sequence[Row] = ()
    """Those that joined it after its save."""
    is_all: bool = False
    """Whether that is all that was logged up to it."""


def _kept_with(session: Session, row: VersionRow, at: str | None) -> _Held | None:
    """None where a version keeps no rows."""
    connection = session.catalog.connection
    named = session.record(row).provenance
    gone = {each.item for each in deletions.redactions(connection, row.seq)}

    def rows_in(kinds: Mapping[str, str]) -> list[Row]:
        found = (_object(session, row, kind, digest, gone) for kind, digest in kinds.items())
        return [line for data in found for line in logrows.decoded(data).rows]

    if _STATE in named and (rows := rows_of(_object(session, row, _STATE, named[_STATE], gone))):
        return _Held(rows, is_all=True)
    own = {kind: digest for kind, digest in named.items() if kind == logrows.KIND}
    annotations = queries.annotations_of(connection, row.seq, at=at)
    objects = [each for annotation in annotations for each in annotation.objects.items()]
    late = {kind: digest for kind, digest in objects if kind.startswith(f"{logrows.KIND}#")}
    return _Held(rows_in(own), rows_in(late)) if own or late else None


def _object(session: Session, row: VersionRow, kind: str, digest: str, gone: set[str]) -> bytes:
    if kind in gone:
        return b""
    try:
        return bytes(session.read_object(row, digest))
    except StemmataError:
        return b""


def _likely(session: Session, version: VersionRow, line: Sequence[VersionRow]) -> Iterator[VersionRow]:
    """Whose files may have the run's log: the version's own, the last of its line, the run's last state."""
    yield version
    if line and line[-1].id != version.id:
        yield line[-1]
    run = _run_of(version)
    if run is not None:
        connection = session.catalog.connection
        model = queries.model_name(connection, version.model)
        states = lines.versions(connection, name_key(resuming.states_of(model)), run)
        yield from states[-1:]


def _file(session: Session, row: VersionRow) -> bytes:
    try:
        for entry in session.tree(row).files:
            if entry.path == resuming.TRAINER_STATE:
                return read_file(entry, session.object_reader(row))
    except StemmataError:
        pass
    return b""


# --- rows that come later -------------------------------------------------------------------------


def add(session: Session, version: VersionId, kept: Kept) -> None:
    """Keep rows that were logged after a version with it: no later one came that would have them.

    Raises VersionNotFound, and as storages do; then nothing was added.
    """

    def put(writer: ObjectWriter) -> Digest:
        return writer.put(kept.encoded(), "bytes")

    def plan(catalog: Catalog, digest: Digest, packs: list[str]) -> list[Op]:
        row = session.row(version)
        there = {k for a in queries.annotations_of(catalog.connection, row.seq) for k in a.objects}
        objects = {free_kind(logrows.KIND, there): digest.hex}
        return [VersionAnnotate(version=version.hex, objects=objects, packs=packs, event="log")]

    # Before anything is written: there may be no repository any more.
    session.storage.require_writable()
    session.refresh()
    session.row(version)
    attach(session, put, plan)
