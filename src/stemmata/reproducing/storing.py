"""Storing: a verdict becomes an annotation of the version that was made again."""

from __future__ import annotations

from stemmata.arguments import text_of
from stemmata.attaching import attach, free_kind
from stemmata.capture import mask, to_json
from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog
from stemmata.ids import Digest
from stemmata.log.ops import Op, VersionAnnotate
from stemmata.objects import ObjectWriter
from stemmata.reproducing.verdicts import Verdict
from stemmata.reproductions import DETAIL, EVENT, OBJECT, Reproduction, reproductions_of
from stemmata.version import Version


def keep(version: Version, verdict: Verdict, *, why: str = "") -> Reproduction:
    """Keep a verdict with the version: in short in the log, whole as an object that can be redacted.

    Raises VersionNotFound, and as storages do; then nothing was added.
    """
    session = version.source
    session.storage.require_writable()
    session.refresh()
    session.row(version.id)

    def put(writer: ObjectWriter) -> Digest:
        return writer.put(to_json(verdict.to_dict()), "bytes")

    def plan(catalog: Catalog, digest: Digest, packs: list[str]) -> list[Op]:
        row = session.row(version.id)
        there = {k for a in queries.annotations_of(catalog.connection, row.seq) for k in a.objects}
        kind = free_kind(OBJECT, there)
        return [
            VersionAnnotate(
                version=version.id.hex,
                details={DETAIL: {**verdict.annotation(), "object": kind}},
                objects={kind: digest.hex},
                packs=packs,
                event=EVENT,
                why=mask(text_of(why)),
            )
        ]

    attach(session, put, plan)
    row = session.row(version.id)
    return reproductions_of(queries.annotations_of(session.catalog.connection, row.seq))[-1]
