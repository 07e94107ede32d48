"""Redacting: provenance that is no longer handed out, for good. Owns which versions hold the same bytes.

What stays is a tombstone: when, by whom and why. The bytes are erased when the repository is collected.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stemmata.arguments import text_of
from stemmata.capture import mask
from stemmata.catalog import deletions, queries
from stemmata.catalog.catalog import Catalog
from stemmata.errors import InvalidArgument, NotFound, Redacted
from stemmata.ids import VersionId
from stemmata.log.ops import Op, VersionRedact
from stemmata.session import Session


@dataclass(frozen=True, slots=True)
class Erased:
    """Kinds of one version that are, or would be, redacted."""

    version: VersionId
    label: str
    kinds: tuple[str, ...]


def redact(
    session: Session,
    version: VersionId,
    kinds: Sequence[str],
    *,
    why: str = "",
    everywhere: bool = False,
    dry_run: bool = False,
) -> tuple[list[Erased], int]:
    """Redact objects of a version; and how many other versions hold the same bytes still.

    `everywhere`: of all that hold them, deleted ones too. Raises NotFound, Redacted, InvalidArgument.
    """
    if not kinds:
        raise InvalidArgument(argument="redact", reason="name the kinds; stemmata show REF lists them")
    found: list[Erased] = []
    others = [0]

    def plan(catalog: Catalog) -> list[Op]:
        connection = catalog.connection
        row = session.row(version)
        held = session.record(row).provenance
        attached = {k: d for a in queries.annotations_of(connection, row.seq) for k, d in a.objects.items()}
        there = {**attached, **held}
        gone = {r.item: r for r in deletions.redactions(connection, row.seq)}
        items: dict[VersionId, list[str]] = {version: _with_pieces(kinds, there)}
        elsewhere: set[VersionId] = set()
        for kind in tuple(items[version]):
            if kind not in there:
                has = ", ".join(sorted(there)) or "none"
                raise NotFound(
                    reason=f"version {row.id.short} has no provenance named {kind!r}; it has: {has}"
                )
            if kind in gone and kind in kinds:
                raise redacted(gone[kind], row.id)
            if kind in gone:
                items[version].remove(kind)  # a piece that was asked for by itself before
                continue
            for other, same in deletions.holders_of(connection, there[kind]):
                done = queries.redacted_items(connection, other.seq)
                if same in done:
                    continue
                if not everywhere:
                    elsewhere.add(other.id)
                elif same not in items.setdefault(other.id, []):
                    items[other.id].append(same)  # of two kinds with the same bytes each finds both
        found[:] = [_erased(catalog, each, names) for each, names in items.items()]
        others[0] = len(elsewhere - {version})
        said = mask(text_of(why))
        return [VersionRedact(version=v.hex, items=names, why=said) for v, names in items.items()]

    if dry_run:
        session.refresh()
        plan(session.catalog)
    else:
        session.commit(plan)
    return found, others[0]


def _with_pieces(kinds: Sequence[str], there: Collection[str]) -> list[str]:
    """A long file's pieces are attached as `kind+2`, `kind+3`, …: they go with the first."""
    found: list[str] = []
    for kind in kinds:
        piece = re.compile(rf"{re.escape(kind)}\+[0-9]+")
        found += [kind, *sorted(each for each in there if piece.fullmatch(each))]
    return list(dict.fromkeys(found))


def _erased(catalog: Catalog, version: VersionId, kinds: Sequence[str]) -> Erased:
    row = queries.version_by_id(catalog.connection, version)
    name = "" if row is None else f"{queries.model_name(catalog.connection, row.model)}@{row.name}"
    return Erased(version, name, tuple(kinds))


def redacted(found: deletions.Redaction, version: VersionId) -> Redacted:
    """The error for an object that is asked for."""
    why = f" ({found.why})" if found.why else ""
    at = f"{found.at[:16].replace('T', ' ')} UTC"
    return Redacted(item=found.item, version=version.short, at=at, by=found.by, why=why)
